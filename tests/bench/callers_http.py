"""The program that makes load over HTTP: connections that each ask, wait and ask again.

    python -m tests.bench.callers_http HOST PORT PATH

Input and output are those of `tests.bench.callers`; ``callers`` are connections, and an item is the
body of a request. An answer that is not 200 is an error by its status.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import sys
import time
from collections.abc import Iterator

from tests.bench.callers import Spec, Tally

END = b"\r\n\r\n"
LENGTH = b"content-length:"


class Connection(asyncio.Protocol):
    """One caller.

    Args:
        tally: counts what it does.
        requests: that all connections take in turn.
        open: is set when it has begun.
    """

    def __init__(self, tally: Tally, requests: Iterator[bytes]) -> None:
        self._tally, self._requests = tally, requests
        self._received = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the first question."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer; after the last one ask again."""
        self._received += data
        head, found, body = self._received.partition(END)
        if not found or len(body) < _length(head):
            return
        now = time.monotonic()
        if head[9:12] == b"200":
            self._tally.answer(self._sent, now, None)
        else:
            status = head[9:12].decode()
            self._tally.errors[status] = self._tally.errors.get(status, 0) + 1
        self._received = b""
        if now < self._tally.end:
            self._ask()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        """The load has ended, or the server has."""
        if time.monotonic() < self._tally.end:
            self._tally.errors["lost"] = self._tally.errors.get("lost", 0) + 1
        if not self.ended.done():
            self.ended.set_result(None)

    def _ask(self) -> None:
        self._sent = time.monotonic()
        self._tally.made += self._tally.start <= self._sent < self._tally.end
        if self._transport is not None:
            self._transport.write(next(self._requests))


def _length(head: bytes) -> int:
    at = head.lower().find(LENGTH)
    return int(head[at + len(LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def request(host: str, path: str, body: bytes) -> bytes:
    """The bytes of a request."""
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def main(host: str, port: str, path: str) -> None:
    """Make each load that is asked for, until the input ends."""
    gc.freeze()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        spec = Spec(**json.loads(line))
        start = time.monotonic() + spec.warm_up
        tally = Tally(start, start + spec.seconds)
        bodies = [json.dumps({"instances": [item]}).encode() for item in spec.items]
        requests = itertools.cycle([request(host, path, body) for body in bodies])
        made = [
            await loop.create_connection(lambda: Connection(tally, requests), host, int(port))  # noqa: B023
            for _ in range(spec.callers)
        ]
        if made:
            await asyncio.wait([connection.ended for _, connection in made], timeout=spec.timeout)
        print(json.dumps(vars(tally)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
