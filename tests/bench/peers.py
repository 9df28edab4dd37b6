"""Clients and workers at the level of the wire, cheaper than the broker that they load.

A message is put together from bytes packed beforehand: only ids and tickets are packed each time.
What comes is unpacked by msgpack's C, and looked into no further than the counts need.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import msgpack
import zmq

from tests.bench.sockets import PATIENCE, dealer
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Hello, Kind, Role, State, WorkerState

MODEL = "bench"
BUDGET = 600_000
"""Milliseconds of every item: none may expire however slow the machine is."""

_pack = msgpack.packb


class Way(IntEnum):
    """The four ways of a bundle, in the order of an item's path.

    A tally is a row of eight integers: messages by way, then items by way.
    """

    SUBMIT = 0
    WORK = 1
    REPORT = 2
    ANSWER = 3


class Bundles(NamedTuple):
    """Mean items a message, by way; 0 where nothing went that way."""

    submit: float
    work: float
    report: float
    answer: float

    def __str__(self) -> str:
        return "/".join(f"{mean:.3g}" for mean in self)


def bundles(before: Sequence[int], after: Sequence[int]) -> Bundles:
    """Return the mean bundles between two copies of a tally."""
    new = [late - early for late, early in zip(after[:8], before[:8], strict=True)]
    return Bundles(*(new[4 + way] / new[way] if new[way] else 0.0 for way in Way))


class Peer:
    """A session with a broker, up to its WELCOME.

    tally: where messages and items are counted; several peers may share it.
    """

    role: Role

    def __init__(self, address: str, size: int, tally: memoryview | list[int], **info: object):
        self.socket = dealer(address)
        self.tally = tally
        self._copied = size <= protocol.INLINE
        hello = Hello(self.role, secrets.randbits(63), {"extensions": [protocol.TRACES], **info})
        self.socket.send_multipart(protocol.hello(hello))

    def wait_welcome(self) -> None:
        """Wait for the broker's WELCOME.

        Raises:
            TimeoutError: it did not come.
        """
        if not self.socket.poll(int(PATIENCE * 1000)):
            raise TimeoutError(f"no WELCOME within {PATIENCE:g} s")
        message = protocol.decode(self.socket.recv_multipart())
        assert isinstance(message, protocol.Welcome), message

    def read(self) -> int:
        """Read all that is there; return how many items came."""
        items = 0
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=self._copied)
            except zmq.Again:
                return items
            head = frames[0] if self._copied else frames[0].buffer
            if head[1] == Kind.REFUSE:  # a head is a short array, so its second byte is the kind
                raise RuntimeError(f"the broker refuses a session: {msgpack.unpackb(head)[1]}")
            items += self.take(head)

    def take(self, head: bytes) -> int:
        """A message has come; return how many items it carries."""
        raise NotImplementedError

    def _send(self, head: bytes, frames: list[zmq.Frame], way: Way, count: int) -> None:
        if frames:
            self.socket.send_multipart([head, *frames], copy=False)
        else:
            self.socket.send(head)
        self.tally[way] += 1
        self.tally[4 + way] += count

    def close(self) -> None:
        """End the session."""
        self.socket.close(linger=0)


class Client(Peer):
    """Submits items whose payload begins with its own number.

    Attributes:
        traced: of so many items one has a trace of its own; 0 for none.
    """

    role = Role.CLIENT

    def __init__(
        self, address: str, number: int, size: int, tally: memoryview | list[int], **info: object
    ) -> None:
        super().__init__(address, size, tally, **info)
        self._number = number
        self.traced = 0
        self._payload = number.to_bytes(8, "big").ljust(size, b"x")[: max(size, 8)]
        self._tail = cache(self._pack_tail)
        self._id = 0
        self._answers = 0

    def submit(self, count: int) -> None:
        """Send one SUBMIT of so many new items."""
        ids = list(range(self._id, self._id + count))
        self._id += count
        tail, frames = self._tail(count)
        traces = self._traces(ids) if self.traced else b""
        kind = b"\x94\x04" if traces else b"\x93\x04"
        head = b"".join((kind, _pack(self._answers), _RUN, _pack(ids), tail, traces))
        self._send(head, frames, Way.SUBMIT, count)

    def take(self, head: bytes) -> int:
        """Count an ANSWER; raise RuntimeError where one of its items was refused."""
        if head[1] != Kind.ANSWER:
            return 0
        _, ids, slots = msgpack.unpackb(head)
        if list in set(map(type, slots)):
            raise RuntimeError(f"an item failed: {next(s for s in slots if type(s) is list)}")
        self._answers += 1
        self.tally[Way.ANSWER] += 1
        self.tally[4 + Way.ANSWER] += len(ids)
        return len(ids)

    def _traces(self, ids: list[int]) -> bytes:
        """Return the packed traces of the items whose turn it is; nothing where it is nobody's."""
        first = ids[0] + -(ids[0] + self._number) % self.traced
        named = range(first, ids[-1] + 1, self.traced)
        return _pack([(_TRACE % id, "", [id]) for id in named]) if named else b""

    def _pack_tail(self, count: int) -> tuple[bytes, list[zmq.Frame]]:
        slots, frames = _column(self._payload, count)
        return _pack([BUDGET] * count) + slots, frames


_RUN = b"\x91\x97" + _pack(MODEL) + _pack(0) * 3
"""One run of the model; priority, flags and lane are 0."""

_TRACE = f"00-{secrets.token_hex(16)}-%016x-01"

_TIMES = _pack(0) + _pack(500) + _pack(3)
"""A REPORT's backlog, beta and alpha: batches of half a millisecond."""

_PING = protocol.plain(protocol.Ping())


class Worker(Peer):
    """Takes WORK and answers it with outputs of the inputs' size, when it is told to."""

    role = Role.WORKER

    def __init__(
        self,
        address: str,
        size: int,
        tally: memoryview | list[int],
        batch_size: int,
        pool: int,
        **info: object,
    ) -> None:
        told = {"model": MODEL, "batch_size": batch_size, "pool": pool, **info}
        super().__init__(address, size, tally, **told)
        self.window = 2 * batch_size + pool
        self._payload = bytes(size)
        self._tail = cache(self._pack_tail)

    def warm(self) -> None:
        """Say that it takes work."""
        self.socket.send_multipart(protocol.plain(State(WorkerState.WARM, "")))

    def ping(self) -> None:
        """Say that it is there: the broker gives nothing to a worker that is silent for 3 s."""
        self.socket.send_multipart(_PING)

    def take(self, head: bytes) -> int:
        """Hand a WORK on to `work`."""
        if head[1] != Kind.WORK:
            return 0
        _, _, tickets, _, slots, *_ = msgpack.unpackb(head)
        self.tally[Way.WORK] += 1
        self.tally[4 + Way.WORK] += len(tickets)
        self.work(tickets, slots)
        return len(tickets)

    def work(self, tickets: list[int], slots: list[bytes | None]) -> None:
        """Items have come: begin and finish them at once, in one REPORT."""
        self.report(tickets, tickets)

    def report(self, begun: list[int], done: list[int]) -> None:
        """Send one REPORT."""
        tail, frames = self._tail(len(done))
        head = b"".join((b"\x97\x0d", _pack(begun), _pack(done), tail))
        self._send(head, frames, Way.REPORT, len(done))

    def _pack_tail(self, count: int) -> tuple[bytes, list[zmq.Frame]]:
        slots, frames = _column(self._payload, count)
        return slots + _TIMES, frames


def _column(payload: bytes, count: int) -> tuple[bytes, list[zmq.Frame]]:
    """Return the packed slots of so many equal payloads, and the frames of those too large."""
    slots, frames = protocol.lay_out([payload] * count)
    return _pack(slots), [zmq.Frame(frame) for frame in frames]
