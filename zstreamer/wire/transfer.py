"""Large payloads cut into parts, a few on the way at a time. Pure: no sockets, no clock.

    sender                                   receiver
      │ PART 7 (1 MiB) ─────────────────────────>│
      │ PART 7 (1 MiB) ─────────────────────────>│   at most IN_FLIGHT parts unread
      │<───────────────────────────── PART_OK 7  │
      │ PART 7 (the rest) ──────────────────────>│
      │ SUBMIT … slot = 7 ──────────────────────>│   the item itself, once all parts are out

A sender that gives a payload up sends an empty part, and the receiver forgets the others.
Between two parts other bundles pass, so that a payload of 200 MB delays nobody by more than
a few parts. Transfers belong to one connection and end with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from zstreamer.errors import BadRequest, TooLarge, to_wire
from zstreamer.wire import protocol
from zstreamer.wire.protocol import PART, Buffer, Frames, Slot

IN_FLIGHT = 4
"""Parts unread by the receiver: enough to fill a round trip of 10 ms at 400 MB/s."""

Row = TypeVar("Row")


class Parts:
    """A payload that came, or will go, as several frames."""

    __slots__ = ("frames", "size")

    def __init__(self, frames: list[Buffer]) -> None:
        self.frames = frames
        self.size = sum(map(len, frames))

    def __len__(self) -> int:
        return self.size

    def join(self) -> bytes:
        """Return the whole payload as one piece of memory."""
        return b"".join(memoryview(frame) for frame in self.frames)  # type: ignore[arg-type]


class Sender(Generic[Row]):
    """The transfers under way on one connection, first come first served.

    A row is whatever the owner needs to put the item into a bundle once its parts are out.

    Attributes:
        busy: `poll` may have something to send; it need not be asked otherwise.
    """

    def __init__(self) -> None:
        self.busy = False
        self._next = 0
        self._waiting: deque[tuple[int, Iterator[Buffer], Row]] = deque()
        self._begun = 0
        self._given_up: list[int] = []
        self._unread = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._given_up)

    def start(self, payload: Buffer, row: Row) -> None:
        """Queue a payload of more than `PART` bytes."""
        self.busy = True
        self._waiting.append((self.reserve(), iter(cut(payload)), row))

    def reserve(self) -> int:
        """Return the number of a transfer that the owner will send by itself."""
        self._next += 1
        return self._next

    def stop(self) -> list[Row]:
        """End all transfers; return the rows that have not gone out."""
        rows = [row for _, _, row in self._waiting]
        self._waiting.clear()
        return rows

    def give_up(self, row: Row) -> bool:
        """End the transfer of this row; False where none is under way."""
        for position, (transfer, _, other) in enumerate(self._waiting):
            if other == row:
                del self._waiting[position]
                if transfer == self._begun:
                    self._given_up.append(transfer)
                return True
        return False

    def ok(self) -> bool:
        """The peer has read one part; whether there was one to be read."""
        expected = self._unread > 0
        self._unread -= expected
        return expected

    def poll(self) -> tuple[list[Frames], list[tuple[int, Row]]]:
        """Return the messages that may go now, and the rows whose parts are then all out."""
        messages: list[Frames] = []
        rows: list[tuple[int, Row]] = []
        for transfer in self._given_up:
            messages.append(protocol.part(transfer, b""))
            self._unread += 1
        self._given_up.clear()
        while self._waiting and self._unread < IN_FLIGHT:
            transfer, frames, row = self._waiting[0]
            frame = next(frames, None)
            if frame is None:
                rows.append((transfer, row))
                self._waiting.popleft()
                continue
            self._begun = transfer
            messages.append(protocol.part(transfer, frame))
            self._unread += 1
        self.busy = bool(self._waiting)
        return messages, rows


class Receiver:
    """The parts that have come on one connection and whose item has not."""

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self.bytes = 0
        self._parts: dict[int, list[Buffer]] = {}
        self._sizes: dict[int, int] = {}

    def part(self, transfer: int, data: Buffer) -> None:
        """Keep one part; beyond ``max_payload`` bytes only the count goes on.

        An empty part says that the sender has given the payload up.
        """
        if not len(data):
            self.take(transfer)
            return
        size = self._sizes.get(transfer, 0) + len(data)
        self._sizes[transfer] = size
        parts = self._parts.setdefault(transfer, [])
        if size > self.max_payload:
            self.bytes -= sum(map(len, parts))
            parts.clear()
        else:
            parts.append(data)
            self.bytes += len(data)

    def take(self, transfer: int) -> Parts | int | None:
        """Return the payload of a transfer, its size where that was too large, None if unknown."""
        parts = self._parts.pop(transfer, None)
        if parts is None:
            return None
        size = self._sizes.pop(transfer)
        if size > self.max_payload:
            return size
        self.bytes -= size
        return Parts(parts)

    def payload(self, slot: Slot) -> Slot:
        """Return a slot with its payload in it, or with the error that stands for it."""
        if type(slot) is not int:
            return slot if slot is not None else to_wire(BadRequest("an item without payload"))
        came = self.take(slot)
        if isinstance(came, Parts):
            # One that need not have come in parts goes on like any other of its size.
            return came if came.size > PART else came.join()
        if came is None:
            return to_wire(BadRequest(f"transfer {slot} is not known"))
        words = f"a payload of {came} bytes exceeds the limit of {self.max_payload}"
        return to_wire(TooLarge(words))


def cut(payload: Buffer) -> Iterable[Buffer]:
    """Return the parts of a payload; one that came in parts goes on in the same parts."""
    if isinstance(payload, Parts):
        return payload.frames
    view = memoryview(payload)  # type: ignore[arg-type]  # whole payloads are bytes
    return (view[start : start + PART] for start in range(0, len(view), PART))
