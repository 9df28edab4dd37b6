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
from typing import TypeAlias, TypeVar

import msgpack

from zstreamer import errors
from zstreamer.wire import heads
from zstreamer.wire import traces as traced
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


def decode(frames: Sequence[Buffer]) -> Message:
    """Return the message in ``frames``; frames of payloads stand in their slots.

    Raises:
        ProtocolError: the frames are no well-formed message of this version. A HELLO of
            another version is still decoded, so that it can be refused with words.
    """
    try:
        if len(frames) > MAX_FRAMES:
            raise ProtocolError("too many frames")
        head = heads.unpack(frames[0])  # type: ignore[arg-type]  # heads are bytes
        return _DECODERS[head[0]](head, frames)  # type: ignore[index]  # any integer
    except ProtocolError:
        raise
    except Exception as cause:  # whatever the fields provoke, they are no message
        # The text of it may repeat what was sent.
        raise ProtocolError(f"malformed message: {type(cause).__name__}") from cause


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


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ProtocolError(what)


_INTS = {int}


def _columns(first: list[int], *others: Sequence[object]) -> None:
    if type(first) is not list or not set(map(type, first)) <= _INTS:
        raise ProtocolError("ids are not integers")
    for other in others:
        if type(other) is not list or len(other) != len(first):
            raise ProtocolError("columns differ in length")


_SLOTS = {bytes, int, list, type(None)}


def _fill(slots: list[Slot], frames: Sequence[Buffer], used: int) -> int:
    """Put frames into the empty slots; return how many frames of the message are now used."""
    kinds = set(map(type, slots))
    if kinds == _BYTES:
        return used
    _require(kinds <= _SLOTS, "a slot of unknown type")
    if None in slots:
        for position, slot in enumerate(slots):
            if slot is None:
                frame = frames[used]
                # A small one is bytes from here on, as if it had come in the head.
                small = len(frame) <= INLINE
                slots[position] = bytes(memoryview(frame)) if small else frame  # type: ignore[arg-type]  # a received frame
                used += 1
    if list in kinds:
        for position, slot in enumerate(slots):
            if type(slot) is list:
                slots[position] = _error(slot)
    return used


def _error(slot: list[object]) -> list[object]:
    """Return an error that is passed on or kept: within bounds, whatever a peer has made of it."""
    _require(len(slot) == 3 and type(slot[0]) is int, "malformed error")
    return errors.bounded(slot)


def _end(frames: Sequence[Buffer], used: int) -> None:
    _require(len(frames) == used, "more or fewer frames than slots")


def _decode_hello(fields: list[object], frames: Sequence[Buffer]) -> Hello:
    _end(frames, 1)
    _require(fields[1] == MAGIC, "no HELLO of this protocol")
    version, role, peer, info = (*fields[2:6], 0, 0, {})[:4] if len(fields) > 3 else (0, 0, 0, {})
    if version != VERSION:
        return Hello(0, 0, {}, version if type(version) is int else 0)
    _require(type(role) is int and type(peer) is int and type(info) is dict, "malformed HELLO")
    return Hello(role, peer, info, version)  # type: ignore[arg-type]  # required above


def _decode_submit(fields: list[object], frames: Sequence[Buffer]) -> Submit:
    more = fields[3:]
    _, ack, rows = fields[:3] if more else fields
    _require(type(ack) is int and type(rows) is list, "malformed SUBMIT")
    runs = [Run._make(row) for row in rows]  # type: ignore[attr-defined]  # required above
    used = 1
    for run in runs:
        model, priority, flags, lane, ids, budgets, slots = run
        if type(model) is not str or not type(priority) is type(flags) is type(lane) is int:
            raise ProtocolError("malformed run")
        _columns(ids, budgets, slots)
        _columns(budgets)
        if set(map(type, slots)) == _BYTES:
            continue
        if list in map(type, slots):
            raise ProtocolError("an error in the place of an input")
        used = _fill(slots, frames, used)
    _end(frames, used)
    items = sum([len(run.ids) for run in runs]) if more else 0
    traces = traced.decoded(*more, items=items) if more else ()
    return Submit(ack, runs, traces)  # type: ignore[arg-type]  # required above


def _decode_answer(fields: list[object], frames: Sequence[Buffer]) -> Answer:
    message = Answer(*fields[1:])  # type: ignore[arg-type]  # checked below
    _columns(message.ids, message.slots)
    _end(frames, _fill(message.slots, frames, 1))
    return message


def _decode_work(fields: list[object], frames: Sequence[Buffer]) -> Work:
    message = Work(*fields[1:6])  # type: ignore[arg-type]  # checked below
    _columns(message.tickets, message.budgets, message.slots)
    _columns(message.budgets)
    if len(fields) > 6:
        traces = traced.decoded(*fields[6:], items=len(message.tickets))
        message = message._replace(traces=traces)
    if message.tags:
        _columns(message.tickets, message.tags)
        _require(set(map(type, message.tags)) == {str}, "tags are not texts")
    _end(frames, _fill(message.slots, frames, 1))
    return message


def _decode_welcome(fields: list[object], frames: Sequence[Buffer]) -> Welcome:
    message: Welcome = _plain_welcome(fields[:7], frames)  # type: ignore[assignment]  # a WELCOME
    if len(fields) == 7:
        return message
    _, *_, extensions = fields
    _require(len(fields) == 8 and type(extensions) is list, "malformed WELCOME")
    _require(set(map(type, extensions)) <= {str}, "malformed WELCOME")  # type: ignore[call-overload]
    return message._replace(extensions=extensions)  # type: ignore[arg-type]  # required above


def _decode_report(fields: list[object], frames: Sequence[Buffer]) -> Report:
    message = Report(*fields[1:])  # type: ignore[arg-type]  # checked below
    if message.begun != []:
        _columns(message.begun)
    _columns(message.done, message.slots)
    if not type(message.backlog) is type(message.beta) is type(message.alpha) is int:
        raise ProtocolError("malformed REPORT")
    if min(message.backlog, message.beta, message.alpha) < 0:
        raise ProtocolError("malformed REPORT")
    _end(frames, _fill(message.slots, frames, 1))
    return message


def _decode_part(fields: list[object], frames: Sequence[Buffer]) -> Part:
    _end(frames, 2)
    _require(len(fields) == 2 and type(fields[1]) is int, "malformed PART")
    return Part(fields[1], frames[1])  # type: ignore[arg-type]  # required above


Decoder: TypeAlias = Callable[[list[object], Sequence[Buffer]], "Message"]


def _decoder(cls: type[Message], *types: type) -> Decoder:
    """Return a decoder for a message of plain fields of these types."""

    def decode_plain(fields: list[object], frames: Sequence[Buffer]) -> Message:
        _end(frames, 1)
        fields = fields[1:]
        _require(tuple(map(type, fields)) == types, f"malformed {cls.__name__}")
        for position, field in enumerate(fields):
            if type(field) is list:
                if cls in (Welcome, Cancel):
                    _columns(field)
                elif field:
                    fields[position] = _error(field)
        return cls(*fields)  # type: ignore[arg-type]  # required above

    return decode_plain


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

_plain_welcome = _decoder(Welcome, int, bool, list, int, int, int)

_DECODERS: dict[int, Decoder] = {
    Kind.HELLO: _decode_hello,
    Kind.WELCOME: _decode_welcome,
    Kind.REFUSE: _decoder(Refuse, list),
    Kind.SUBMIT: _decode_submit,
    Kind.CANCEL: _decoder(Cancel, list),
    Kind.ACK: _decoder(Ack, int),
    Kind.ANSWER: _decode_answer,
    Kind.PART: _decode_part,
    Kind.PART_OK: _decoder(PartOk, int),
    Kind.NOTICE: _decoder(Notice, str, list),
    Kind.PING: _decoder(Ping),
    Kind.WORK: _decode_work,
    Kind.REPORT: _decode_report,
    Kind.STATE: _decoder(State, int, str),
    Kind.STATUS: _decoder(Status, dict),
}
