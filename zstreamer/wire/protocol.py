"""Messages ⇄ frames, exactly as docs/protocol.md lays them down. Pure: no sockets, no clock.

    frame 0    head: one msgpack array  [kind, field, field, …]
    frame 1…   payloads too large for the head, in the order of the empty slots that name them

    client                       broker                       worker agent
       │ HELLO ───────────────────>│<─────────────────── HELLO │
       │<───────────────── WELCOME │ WELCOME ─────────────────>│
       │ SUBMIT  ids, budgets, … ─>│ WORK  tickets, budgets, … >│
       │<────────── ANSWER ids, …  │<── REPORT begun, done, …  │

A bundle's columns run in step: the n-th id, budget and slot belong to one item. A slot holds

    bin     the payload itself, up to INLINE bytes
    nil     the payload is the next frame of this message
    uint    the payload came before, as the parts of this transfer
    array   no payload but an error: [code, message, details]
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgpack

from zstreamer.wire.decoder import decode
from zstreamer.wire.messages import (
    BUNDLE,
    INLINE,
    MAGIC,
    MAX_BUDGET,
    MAX_FRAME,
    MAX_FRAMES,
    MAX_NAME,
    MAX_OPEN,
    MAX_ROWS,
    MAX_TRACES,
    PART,
    TRACES,
    VERSION,
    Ack,
    Answer,
    Buffer,
    Cancel,
    Fate,
    Flag,
    Frames,
    Hello,
    Kind,
    Message,
    Notice,
    Part,
    PartOk,
    Ping,
    ProtocolError,
    Refuse,
    Report,
    Role,
    Run,
    Slot,
    State,
    Status,
    Submit,
    Traced,
    Welcome,
    Work,
    WorkerState,
)

__all__ = [
    "BUNDLE",
    "INLINE",
    "MAGIC",
    "MAX_BUDGET",
    "MAX_FRAME",
    "MAX_FRAMES",
    "MAX_NAME",
    "MAX_OPEN",
    "MAX_ROWS",
    "MAX_TRACES",
    "NO_PAYLOAD",
    "PART",
    "TRACES",
    "VERSION",
    "Ack",
    "Answer",
    "Buffer",
    "Cancel",
    "Fate",
    "Flag",
    "Frames",
    "Hello",
    "Kind",
    "Message",
    "Notice",
    "Part",
    "PartOk",
    "Ping",
    "ProtocolError",
    "Refuse",
    "Report",
    "Role",
    "Run",
    "Slot",
    "State",
    "Status",
    "Submit",
    "Traced",
    "Welcome",
    "Work",
    "WorkerState",
    "all_apart",
    "answer",
    "bundles",
    "cancels",
    "cost",
    "decode",
    "fits_inline",
    "hello",
    "lay_out",
    "part",
    "plain",
    "report",
    "size",
    "submit",
    "work",
]

Row = TypeVar("Row")


def hello(message: Hello) -> Frames:
    """Return the frames of a HELLO."""
    return [_pack((Kind.HELLO, MAGIC, message.version, message.role, message.id, message.info))]


def submit(ack: int, runs: Sequence[Run], frames: Frames, traces: Sequence[Traced] = ()) -> Frames:
    """Return the frames of a SUBMIT; ``frames`` fill its empty slots, in order."""
    if traces:  # never empty: a broker of before knows no such field
        return [_pack((4, ack, runs, [each[:3] for each in traces])), *frames]
    return [_pack((4, ack, runs)), *frames]


def answer(ids: list[int], slots: list[Slot], frames: Frames) -> Frames:
    """Return the frames of an ANSWER; ``frames`` fill its empty slots, in order."""
    return [_pack((7, ids, slots)), *frames]


def work(
    flags: int,
    tickets: list[int],
    budgets: list[int],
    slots: list[Slot],
    frames: Frames,
    tags: list[str] | None = None,
    traces: Sequence[Traced] = (),
) -> Frames:
    """Return the frames of a WORK; ``frames`` fill its empty slots, in order."""
    if traces:
        return [_pack((12, flags, tickets, budgets, slots, tags or (), traces)), *frames]
    if tags is not None:
        return [_pack((12, flags, tickets, budgets, slots, tags)), *frames]
    return [_pack((12, flags, tickets, budgets, slots)), *frames]


def report(message: Report, frames: Frames) -> Frames:
    """Return the frames of a REPORT; ``frames`` fill its empty slots, in order."""
    return [_pack((13, *message)), *frames]


def part(transfer: int, data: Buffer) -> Frames:
    """Return the frames of one PART."""
    return [_pack((8, transfer)), data]


def plain(message: Message) -> Frames:
    """Return the single frame of any message that carries no payload."""
    if type(message) is Welcome and not message.extensions:
        return [_pack((Kind.WELCOME, *message[:-1]))]
    return [_pack((_KINDS[type(message)], *message))]


def fits_inline(size: int, rows: int) -> bool:
    """Whether this many payloads, of so many bytes together, may share one head as they are."""
    return size <= INLINE and rows <= MAX_ROWS


def cancels(ids: list[int]) -> list[Frames]:
    """Return the messages that cancel these, each within the bounds of its kind."""
    return [plain(Cancel(ids[i : i + MAX_OPEN])) for i in range(0, len(ids), MAX_OPEN)]


def lay_out(payloads: list[Slot]) -> tuple[list[Slot], Frames]:
    """Return slots and frames for these payloads: the large ones in frames of their own."""
    if set(map(type, payloads)) == _BYTES and max(map(len, payloads)) <= INLINE:  # type: ignore[arg-type]  # all are bytes
        return payloads, []
    frames = [p for p in payloads if _has_own_frame(p)]
    return [None if _has_own_frame(p) else p for p in payloads], frames  # type: ignore[return-value]


def all_apart(payloads: list[Slot]) -> tuple[list[Slot], Frames]:
    """Return slots and frames for payloads of which the head could not hold even the small ones."""
    frames: Frames = [p for p in payloads if type(p) not in NO_PAYLOAD]  # type: ignore[misc]
    return [None if type(p) not in NO_PAYLOAD else p for p in payloads], frames


def _has_own_frame(payload: Slot) -> bool:
    return type(payload) not in NO_PAYLOAD and len(payload) > INLINE  # type: ignore[arg-type]


_BYTES = {bytes}


def size(slot: Slot) -> int:
    """Return about how many bytes a slot costs its holder."""
    if slot is None or isinstance(slot, int):
        return _BARE
    if not isinstance(slot, list):
        return len(slot)
    # Tracebacks add up in a large batch.
    details = slot[2].values() if len(slot) > 2 and isinstance(slot[2], dict) else ()
    return _BARE + sum(len(words) for words in (slot[1], *details) if isinstance(words, str))


def cost(frames: Frames) -> int:
    """Return about how many bytes a message without payload costs its sender until it is read."""
    return _BARE + len(frames[0])


_BARE = 64
"""Bytes that stand for whatever has no payload."""

NO_PAYLOAD = {int, list, type(None)}
"""Types of slots that do not hold their payload themselves."""


def bundles(rows: list[Row], size: Callable[[Row], int]) -> Iterator[list[Row]]:
    """Cut rows into runs of at most `BUNDLE` bytes, or of one row where that is larger, and of at
    most `MAX_ROWS` rows.
    """
    total = start = 0
    for end, row in enumerate(rows):
        length = size(row)
        total += length
        if (total > BUNDLE and end > start) or end - start == MAX_ROWS:
            yield rows[start:end]
            start, total = end, length
    if start < len(rows):
        yield rows[start:] if start else rows


class _Local(threading.local):
    """A packer a thread: making one for each message would cost as much as using it."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.pack: Callable[[object], bytes] = msgpack.Packer().pack


_local = _Local()

_LARGE = 256 * 1024
"""Bytes of a message after which the packer is another one: its buffer never shrinks."""


def _pack(fields: object) -> bytes:
    packed = _local.pack(fields)
    if len(packed) > _LARGE:
        _local.renew()
    return packed


_KINDS: dict[type, Kind] = {
    Welcome: Kind.WELCOME,
    Refuse: Kind.REFUSE,
    Cancel: Kind.CANCEL,
    Ack: Kind.ACK,
    PartOk: Kind.PART_OK,
    Notice: Kind.NOTICE,
    Ping: Kind.PING,
    State: Kind.STATE,
    Status: Kind.STATUS,
}
