"""Messages that are good, nearly good, costly or nonsense; whoever reads them must stay well."""

import msgpack

from zstreamer.wire import protocol
from zstreamer.wire.protocol import Fate, Flag, Kind, Role, WorkerState

MODELS = ["default", "bert", "m", "", "é" * 255, "x" * 256]
INTS = [0, 1, 2, 7, 255, 2**31, 2**63, 2**64 - 1, -1, -(2**63)]


def nested(depth, inner=None):
    """A value inside so many arrays."""
    for _ in range(depth):
        inner = [inner]
    return inner


COSTLY = [
    b"\x92\x07\xdd\x00\x0f\x00\x00" + 0xF0000 * b"\x90",
    b"\x92\x07\xdd\x00\x0f\x00\x00" + 0xF0000 * b"\x80",
    b"\x92\x01\xdd\x00\x07\x00\x00" + 0x70000 * b"\x90",
    1000 * b"\xdc\xff\xff" + bytes(70_000),
    340 * b"\xdc\x03\xff",
    900 * b"\x91",
    5000 * b"\x91" + b"\xc0",
    msgpack.packb([1, "ZSP", 1, 1, 1, {"info": "x" * 500_000}]),
    msgpack.packb([1, "ZSP", 1, 1, 1, {"open": list(range(60_000))}]),
    msgpack.packb([1, "ZSP", 1, 2, 1, {"model": "m", "host": "h" * 400_000}]),
    msgpack.packb([14, 3, "x" * 250_000]),
    msgpack.packb([13, [], [1], [[500, "x", {"deep": nested(700)}]], 0, 0, 0]),
    msgpack.packb([13, [], [1], [[500, "x" * 10**6, {"a": "y" * 500_000}]], 0, 0, 0]),
    msgpack.packb([10, "m" * 200_000, []]),
    msgpack.packb([5, list(range(2**40, 2**40 + 50_000))]),
    msgpack.packb([4, 0, [["m", 0, 0, n, [n], [1000], [b""]] for n in range(12_000)]]),
]
"""Heads that cost much more to read than to send, if nothing is done about it."""


def value(rng, depth=0):  # noqa: PLR0911  # one for each kind of value
    """Any msgpack value, mostly small."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind == 0:
        return rng.choice(INTS)
    if kind == 1:
        return rng.choice([None, True, False, 1.5, float("nan"), float("inf"), -0.0])
    if kind == 2:
        return rng.choice(["", "ZSP", "model", "x" * rng.randrange(300), "中"])
    if kind == 3:
        return rng.randbytes(rng.randrange(40))
    if kind in (4, 5):
        return rng.randrange(200)
    if kind == 6:
        return {value(rng, 9) if rng.random() < 0.2 else "k": value(rng, depth + 1)}
    return [value(rng, depth + 1) for _ in range(rng.randrange(5))]


def integer(rng):
    """Mostly a small one."""
    return rng.choice(INTS) if rng.random() < 0.1 else rng.randrange(50)


def error(rng):
    """Something like an error, of all sizes and depths."""
    code = rng.choice([400, 500, 601, 602, 603, 503, 9999, integer(rng)])
    words = rng.choice(["", "no", "x" * 30_000])
    details = rng.choice([{}, {"batch": integer(rng)}, {"deep": nested(rng.randrange(40))}])
    return [code, words, details] if rng.random() < 0.95 else [code, value(rng), value(rng)]


def slots(rng, count, errors):
    """A column of slots, and the frames that belong to it."""
    frames = []
    found = []
    for _ in range(count):
        kind = rng.randrange(8)
        if kind == 0:
            frames.append(rng.randbytes(rng.choice([0, 5, 20_000])))
            found.append(None)
        elif kind == 1:
            found.append(integer(rng))
        elif kind == 2 and errors:
            found.append(error(rng))
        else:
            found.append(rng.randbytes(rng.randrange(20)))
    return found, frames


def column(rng, count, known=()):
    """So many numbers, of which some are known ones."""
    return [
        rng.choice(known) if known and rng.random() < 0.9 else integer(rng) for _ in range(count)
    ]


def info(rng):
    """What a HELLO says of its peer."""
    found = {
        "model": rng.choice(MODELS[:3]) if rng.random() < 0.9 else rng.choice(MODELS),
        "batch_size": rng.choice([1, 4, 32]),
        "pool": rng.choice([0, 0, 8]),
        "open": column(rng, rng.randrange(4)),
        "host": "host",
        "pid": 7,
    }
    for _ in range(rng.choice([0, 0, 1, 2])):
        found[rng.choice([*found, "patience", "inputs", "outputs", "device", "x"])] = value(rng)
    return found


def hello(rng, role):
    """A HELLO that is mostly good."""
    role = role if rng.random() < 0.95 else rng.randrange(5)
    return protocol.hello(protocol.Hello(role, rng.randrange(1, 12), info(rng)))


def from_client(rng):  # noqa: PLR0911  # one for each kind of message
    """A message that is mostly what a client may say."""
    kind = rng.randrange(12)
    if kind < 5:
        runs, frames = [], []
        for _ in range(rng.choice([1, 1, 1, 3])):
            count = rng.choice([0, 1, 1, 3, 20])
            found, more = slots(rng, count, errors=False)
            name = rng.choice(MODELS[:3]) if rng.random() < 0.9 else rng.choice(MODELS)
            budgets = [rng.choice([0, 5, 1000, 20_000, 2**64 - 1]) for _ in range(count)]
            columns = [rng.randrange(100_000) for _ in range(count)], budgets, found
            flags, lane = rng.choice([0, 0, int(Flag.ONCE)]), rng.choice([0, 0, 5])
            runs.append(protocol.Run(name, integer(rng), flags, lane, *columns))
            frames += more
        return protocol.submit(integer(rng), runs, frames)
    if kind < 7:
        return protocol.plain(protocol.Ack(integer(rng)))
    if kind == 7:
        return protocol.plain(protocol.Cancel(column(rng, rng.randrange(5))))
    if kind == 8:
        return protocol.plain(protocol.Notice(rng.choice(MODELS), []))
    if kind == 9:
        return protocol.plain(protocol.Status(rng.choice([{}, {"from": value(rng)}])))
    if kind == 10:
        return protocol.part(integer(rng), rng.randbytes(rng.choice([0, 10, 3000])))
    return protocol.plain(protocol.PartOk(integer(rng)))


def from_worker(rng, tickets=()):
    """A message that is mostly what a worker may say of what it has been given."""
    kind = rng.randrange(12)
    if kind < 7:
        count = rng.choice([0, 1, 4, 8])
        found, frames = slots(rng, count, errors=True)
        if rng.random() < 0.1:
            found = [[int(rng.choice(list(Fate))), "died", {}] for _ in range(count)]
            frames = []
        begun, done = column(rng, rng.randrange(4), tickets), column(rng, count, tickets)
        numbers = abs(integer(rng)), abs(integer(rng)), integer(rng)
        return protocol.report(protocol.Report(begun, done, found, *numbers), frames)
    if kind < 9:
        state = WorkerState.WARM if rng.random() < 0.8 else rng.randrange(7)
        return protocol.plain(protocol.State(state, rng.choice(["", "why", "x" * 50_000])))
    if kind == 9:
        return protocol.plain(protocol.Ping())
    if kind == 10:
        return protocol.part(integer(rng), rng.randbytes(rng.choice([0, 10, 3000])))
    return protocol.plain(protocol.PartOk(integer(rng)))


def spoilt(rng, frames):
    """The same with something about it that is wrong, most of the time."""
    frames = [bytes(memoryview(each)) for each in frames]
    way = rng.randrange(7)
    head = bytearray(frames[0])
    if way == 0 and head:
        head[rng.randrange(len(head))] ^= rng.randrange(1, 256)
    elif way == 1:
        del head[rng.randrange(len(head) + 1) :]
    elif way == 2:
        head += rng.randbytes(3)
    elif way == 3:
        frames += [b""] * rng.choice([1, 3, 5000])
    elif way == 4:
        return [msgpack.packb([rng.choice(list(Kind)), *(value(rng) for _ in range(6))])]
    elif way == 5:
        return [msgpack.packb(value(rng))] if rng.random() < 0.5 else [rng.randbytes(30)]
    elif rng.random() < 0.02:
        return [rng.choice(COSTLY)]
    return [bytes(head), *frames[1:]]


def client(rng):
    """Anything at all on the clients' port."""
    frames = hello(rng, Role.CLIENT) if rng.random() < 0.03 else from_client(rng)
    return spoilt(rng, frames) if rng.random() < 0.1 else frames


def worker(rng, tickets=()):
    """Anything at all on the workers' port."""
    frames = hello(rng, Role.WORKER) if rng.random() < 0.03 else from_worker(rng, tickets)
    return spoilt(rng, frames) if rng.random() < 0.1 else frames
