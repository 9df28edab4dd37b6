"""From frames to messages: what a peer has sent, checked field by field. Pure.

Nothing of a message is believed before it is looked at: `heads` bounds what its head may cost, and
here each field has its type, and a bundle's columns their length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from zstreamer import errors
from zstreamer.wire import heads
from zstreamer.wire import traces as traced
from zstreamer.wire.messages import (
    INLINE,
    MAGIC,
    MAX_FRAMES,
    VERSION,
    Ack,
    Answer,
    Buffer,
    Cancel,
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
    Run,
    Slot,
    State,
    Status,
    Submit,
    Welcome,
    Work,
)


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


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ProtocolError(what)


_BYTES = {bytes}


def _columns(first: list[int], *others: Sequence[object]) -> None:
    if type(first) is not list:
        raise ProtocolError("ids are not integers")
    for number in first:
        if type(number) is not int:
            raise ProtocolError("ids are not integers")
    count = len(first)
    for other in others:
        if type(other) is not list or len(other) != count:
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
    if len(frames) != used:
        raise ProtocolError("more or fewer frames than slots")


def _decode_hello(fields: list[object], frames: Sequence[Buffer]) -> Hello:
    _end(frames, 1)
    _require(fields[1] == MAGIC, "no HELLO of this protocol")
    version, role, peer, info = (*fields[2:6], 0, 0, {})[:4] if len(fields) > 3 else (0, 0, 0, {})
    if type(version) is not int:
        version = 0
    if version != VERSION:
        return Hello(0, 0, {}, version)
    _require(type(role) is int and type(peer) is int and type(info) is dict, "malformed HELLO")
    return Hello(role, peer, info, version)  # type: ignore[arg-type]  # required above


def _decode_submit(fields: list[object], frames: Sequence[Buffer]) -> Submit:
    _, ack, rows, *more = fields
    if type(ack) is not int or type(rows) is not list:
        raise ProtocolError("malformed SUBMIT")
    runs: list[Run] = []
    used = 1
    for row in rows:
        run = Run._make(row)
        model, priority, flags, lane, ids, budgets, slots = run
        if type(model) is not str or not type(priority) is type(flags) is type(lane) is int:
            raise ProtocolError("malformed run")
        _columns(ids, budgets, slots)
        for budget in budgets:
            if type(budget) is not int:
                raise ProtocolError("budgets are not integers")
        runs.append(run)
        if set(map(type, slots)) == _BYTES:
            continue
        if list in map(type, slots):
            raise ProtocolError("an error in the place of an input")
        used = _fill(slots, frames, used)
    if len(frames) != used:
        _end(frames, used)
    if not more:
        return Submit(ack, runs)
    items = sum([len(run.ids) for run in runs])
    return Submit(ack, runs, traced.decoded(*more, items=items))


def _decode_answer(fields: list[object], frames: Sequence[Buffer]) -> Answer:
    message = Answer(*fields[1:])  # type: ignore[arg-type]  # checked below
    _columns(message.ids, message.slots)
    _end(frames, _fill(message.slots, frames, 1))
    return message


def _decode_work(fields: list[object], frames: Sequence[Buffer]) -> Work:
    message = Work(*fields[1:6])  # type: ignore[arg-type]  # checked below
    if type(message.flags) is not int:
        raise ProtocolError("malformed WORK")
    _columns(message.tickets, message.budgets, message.slots)
    _columns(message.budgets)
    if len(fields) > 6:
        traces = traced.decoded(*fields[6:], items=len(message.tickets))
        message = message._replace(traces=traces)
    if message.tags not in ((), []):
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
    begun, done, slots, backlog, beta, alpha = message
    if begun != []:
        _columns(begun)
    _columns(done, slots)
    if not type(backlog) is type(beta) is type(alpha) is int:
        raise ProtocolError("malformed REPORT")
    if backlog < 0 or beta < 0 or alpha < 0:
        raise ProtocolError("malformed REPORT")
    _end(frames, _fill(slots, frames, 1))
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
