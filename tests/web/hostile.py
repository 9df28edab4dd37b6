"""Hostile clients against a real gateway: what each kind is answered, and the speed afterwards.

    scripts/hostile                 10,000 requests, half of them malformed, the rest slow or gone
    scripts/hostile --requests 200  as in the test suite

Every request must be answered with a clean 4xx, 503 or 505 or see its connection closed, within a
few seconds; nothing may be left in the broker's queues; and then the gateway must be as fast as one
that nobody has attacked, the two taking turns.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.cluster import Cluster
from tests.helpers.servers import Server, post
from tests.helpers.waiting import until

MAX_BODY = 100_000
MAX_ITEMS = 100
READ_TIMEOUT = 0.5
HUNG = 8.0
"""Seconds without an answer or an end after which a request counts as hung."""

ROUNDS = 5
"""Speeds that are measured of either gateway."""

AT_ONCE = 64
PATH = "/v1/models/default:predict"
V2 = "/v2/models/default/infer"
GOOD = post(b'{"instances": ["a"]}', PATH)
CHUNKED = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH.encode()
CLEAN = frozenset(
    {"400", "404", "405", "408", "411", "413", "414", "415", "431", "501", "503", "505"}
)
GONE = "closed"


def head(*lines):
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


HEADS = [
    head("FROB / HTTP/1.1", "Host: x"),
    head("GET / HTTP/1.1"),
    head("GET / HTTP/9.9", "Host: x"),
    head("GET / HTTP/1.1 x", "Host: x"),
    head("GET / HTTP/1.1", "Host x"),
    head("GET / HTTP/1.1", "Host: x", " folded: y"),
    head("GET / HTTP/1.1", "Host: x", "A: \0"),
    head("GET /\xff HTTP/1.1", "Host: x"),
    head("CONNECT a:1 HTTP/1.1", "Host: x"),
    head("GET / HTTP/1.1", "Host: x", "A: " + 100_000 * "a"),
    head(f"GET /{100_000 * 'a'} HTTP/1.1", "Host: x"),
    head(f"POST {PATH} HTTP/1.1", "Host: x", "Content-Length: -1"),
    head(f"POST {PATH} HTTP/1.1", "Host: x", f"Content-Length: {'9' * 30}"),
    head(f"POST {PATH} HTTP/1.1", "Content-Length: 1", "Content-Length: 2") + b"aa",
    head(f"POST {PATH} HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    head(f"POST {PATH} HTTP/1.1", "Host: x", "Transfer-Encoding: gzip") + b"aa",
    CHUNKED + b"zz\r\n",
    CHUNKED + b"ffffffffffffffffff\r\n",
    CHUNKED + b"1\r\nabc\r\n0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
BODIES = [
    b"{",
    b'{"instances": ["a"]',
    b'{"instances": ["a"]}}',
    b'{"instances": "a"}',
    b'{"instances": {"a": 1}}',
    b'{"instances": []}',
    b'{"instance": ["a"]}',
    b"[]",
    b"null",
    b'{"instances": [NaN]}',
    b'{"instances": ["\xff\xfe"]}',
    b'{"instances": ["\\ud800"]}',
    b'{"instances": [1' + 400 * b"0" + b"]}",
    b'{"instances": [' + 30_000 * b"[",
    b'{"instances": [' + 500 * b"[" + 500 * b"]" + b"]}",
    b'{"instances": [{"b64": "?"}]}',
]
TENSORS = [
    {"inputs": 1},
    {"inputs": []},
    {"inputs": [{"name": "input", "datatype": "FP99", "shape": [1], "data": [1]}]},
    {"inputs": [{"name": "input", "datatype": "FP32", "shape": [2], "data": [1]}]},
    {"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1], "data": [1]}]},
    {"inputs": [{"name": "input", "datatype": "FP32", "shape": [2**62], "data": []}]},
    {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1], "data": ["a"]}]},
    {"inputs": [{"name": "input", "datatype": "BYTES", "shape": ["a"], "data": ["a"]}]},
]
HEADERS = [
    "Content-Type: application/msgpack",
    "Content-Type: video/mp4",
    "Content-Encoding: gzip",
    "Content-Encoding: frob",
    "X-Request-Timeout: -1",
    "X-Request-Timeout: soon",
    "X-Priority: high",
]


@dataclass
class Row:
    """What one kind of client was answered."""

    what: str
    answers: Counter = field(default_factory=Counter)
    hung: int = 0
    slowest: float = 0.0

    @property
    def good(self):
        """Whether every answer was a clean one."""
        return not self.hung and set(self.answers) <= CLEAN | {GONE}


class Attack:
    """One kind of hostile client; `pieces` are sent with pauses, then an answer is awaited.

    patient: whether it waits for the answer, or hangs up instead.
    """

    def __init__(self, what, pieces, patient=True):
        self.what, self.pieces, self.patient = what, pieces, patient

    async def run(self, port, rng):
        """The status that one request met, `closed`, or None where it hung."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            with contextlib.suppress(ConnectionError):
                for piece in self.pieces(rng):
                    if isinstance(piece, float):
                        await asyncio.sleep(piece)
                    else:
                        writer.write(piece)
                        await writer.drain()
                if self.patient:
                    line = await asyncio.wait_for(reader.readline(), HUNG)
                    return line.split()[1].decode() if line else GONE
            return GONE
        except TimeoutError:
            return None
        finally:
            writer.transport.abort()


def noise(rng):
    yield rng.randbytes(rng.randrange(1, 300)) + b"\r\n\r\n"


def malformed_head(rng):
    yield rng.choice(HEADS)


def cut(rng):
    """A good request that loses or changes a byte of its head."""
    request = bytearray(GOOD)
    place = rng.randrange(20)
    others = [
        each for each in (b"", b"\0", b"\n", b" ", b"\xff") if each != GOOD[place : place + 1]
    ]
    request[place : place + 1] = rng.choice(others)
    yield bytes(request) + b"\r\n\r\n"


def malformed_body(rng):
    body = rng.choice(BODIES)
    yield post(body, PATH)


def wrong_types(rng):
    tensors = json.dumps(rng.choice(TENSORS)).encode()
    yield rng.choice(
        [
            post(tensors, V2),
            post(
                tensors, V2, f"Inference-Header-Content-Length: {rng.choice([3, 10**9, -1, 'a'])}"
            ),
            post(b'{"instances": ["a"', PATH, rng.choice(HEADERS)),
            post(b"\xc1\xff", PATH, "Content-Type: application/msgpack"),
            post(b'{"instances": ["a"]}', "/v1/models//x:predict"),
            post(b'{"instances": ["a"]}', f"/v1/models/{300 * 'm'}:predict"),
        ]
    )


def oversize(rng):
    items = b'{"instances": [%s1]}' % ((MAX_ITEMS + 1) * b"1,")
    yield from rng.choice(
        [
            [post(items, PATH)],
            [head(f"POST {PATH} HTTP/1.1", "Host: x", f"Content-Length: {MAX_BODY + 1}")],
            [post((2 * MAX_BODY) * b" ", PATH)],
            [CHUNKED, *(MAX_BODY // 1000 + 2) * [b"3e8\r\n%s\r\n" % (1000 * b"a")]],
        ]
    )


def slow(rng):
    place = rng.randrange(1, len(GOOD) - 4)
    yield GOOD[:place]
    for byte in GOOD[place : place + 4]:
        yield 0.3
        yield bytes([byte])


def hang_up(rng):
    yield rng.choice([1, 1, 20]) * GOOD  # some do not even wait for one before the next
    yield rng.random() * 0.02


def half(rng):
    yield GOOD[: rng.randrange(1, len(GOOD))]


def deaf(_rng):
    yield 200 * b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    yield 0.1


ATTACKS = [
    (Attack("random bytes", noise), 0.1),
    (Attack("malformed heads", malformed_head), 0.15),
    (Attack("a byte of the head lost or changed", cut), 0.1),
    (Attack("malformed bodies", malformed_body), 0.2),
    (Attack("wrong types, tensors and headers", wrong_types), 0.15),
    (Attack("oversize, announced or not", oversize), 0.1),
    (Attack("slow senders", slow), 0.02),
    (Attack("hang up before the answer", hang_up, patient=False), 0.08),
    (Attack("hang up amid a request", half, patient=False), 0.08),
    (Attack("ask much and read nothing", deaf, patient=False), 0.02),
]
"""Each with its share of all requests."""


async def assault(attack, times, port, seed):
    """Send so many of one kind, some at once."""
    row = Row(attack.what)
    seeds = iter(range(times))

    async def client():
        for number in seeds:
            start = time.monotonic()
            answer = await attack.run(port, random.Random(f"{seed} {attack.what} {number}"))
            row.slowest = max(row.slowest, time.monotonic() - start)
            if answer is None:
                row.hung += 1
            else:
                row.answers[answer] += 1

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return row


async def speed(port, seconds):
    """Good requests a second, of sixteen connections that wait for each answer."""
    end = time.monotonic() + seconds
    counts = await asyncio.gather(*(_ask(port, end) for _ in range(16)))
    return sum(counts) / seconds


async def _ask(port, end):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.monotonic() < end:
        writer.write(GOOD)
        answer = await asyncio.wait_for(reader.readuntil(b'{"predictions":["a"]}'), HUNG)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        count += 1
    writer.close()
    return count


def run(requests=10_000, seconds=1.0, seed=0):
    """Attack a gateway of its own; returns the rows, its speeds then, and those of a fresh one.

    seconds: how long each of the speeds is measured.
    """
    with Cluster() as cluster:
        cluster.worker("echo", batch_size=64)
        with gateway(cluster) as attacked:
            cluster.wait_warm(1)
            rows = [
                asyncio.run(assault(attack, max(1, round(share * requests)), attacked.port, seed))
                for attack, share in ATTACKS
            ]
            until(lambda: cluster.open_items("default") == 0)
            with gateway(cluster) as fresh:
                for each in (attacked, fresh):
                    asyncio.run(speed(each.port, seconds / 2))  # warms up what is still cold
                speeds = {attacked: [], fresh: []}
                for turn in range(ROUNDS):
                    for each in (attacked, fresh)[:: 1 if turn % 2 else -1]:
                        speeds[each].append(asyncio.run(speed(each.port, seconds)))
    return rows, speeds[attacked], speeds[fresh]


def gateway(cluster):
    """A gateway that takes small requests only."""
    limits = ("--max-body", MAX_BODY, "--request-items", MAX_ITEMS, "--read-timeout", READ_TIMEOUT)
    options = ("--broker", cluster.address, "--connect-timeout", "20", "--log-level", "error")
    return Server("zstreamer", "gateway", *options, *limits)


def table(rows, attacked, fresh):
    """The rows as Markdown."""
    lines = ["| what | requests | statuses | hung | slowest |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        answers = ", ".join(f"{what}: {number:,}" for what, number in sorted(row.answers.items()))
        number = sum(row.answers.values()) + row.hung
        lines.append(f"| {row.what} | {number:,} | {answers} | {row.hung} | {row.slowest:.1f} s |")
    lines.append("")
    for who, speeds in (("this gateway", attacked), ("one not attacked", fresh)):
        each = ", ".join(f"{value:,.0f}" for value in speeds)
        lines.append(f"good requests a second of {who}: {statistics.median(speeds):,.0f} ({each})")
    return "\n".join(lines)


def main():
    """Run what the command line asks for; return 1 where an answer was not clean."""
    parser = argparse.ArgumentParser(prog="scripts/hostile")
    parser.add_argument("--requests", type=int, default=10_000, help="how many in all")
    parser.add_argument("--seed", type=int, default=0, help="other requests with each")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    rows, attacked, fresh = run(options.requests, seed=options.seed)
    print(table(rows, attacked, fresh))
    if options.json:
        plain = [{"what": r.what, "answers": r.answers, "hung": r.hung} for r in rows]
        figures = {"rows": plain, "attacked": attacked, "fresh": fresh}
        options.json.write_text(json.dumps(figures, indent=1))
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
