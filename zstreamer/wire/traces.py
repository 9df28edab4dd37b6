"""The contexts of traces in SUBMIT and WORK, as they are read."""

from __future__ import annotations

import re

from zstreamer.wire.messages import MAX_TRACEPARENT, MAX_TRACESTATE, ProtocolError, Traced

TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
"""Version, trace, span, flags, and what a later version may add."""


def decoded(rows: object, *, items: int) -> list[Traced]:
    """Return the rows of a message's last field, without those whose context is no good.

    A context never costs an item: without it the item is only not traced.

    Args:
        rows: the field.
        items: how many items the message has.

    Raises:
        ProtocolError: the rows are malformed, or name more than the message's items.
    """
    if type(rows) is not list:
        raise ProtocolError("traces are not a list")
    if len(rows) > items:
        raise ProtocolError("more traces than items")
    sound: list[Traced] = []
    named = 0
    for row in rows:
        trace = Traced(*row)
        parent, state, ids, waited = trace
        if not (type(parent) is type(state) is str and type(waited) is int and type(ids) is list):
            raise ProtocolError("malformed trace")
        named += len(ids)
        if named > items:
            raise ProtocolError("traces name more ids than the message has items")
        if not set(map(type, ids)) <= _INTS:
            raise ProtocolError("ids of a trace are not integers")
        short = len(parent) <= MAX_TRACEPARENT and len(state) <= MAX_TRACESTATE
        if short and waited >= 0 and TRACEPARENT.fullmatch(parent) is not None:
            sound.append(trace)
    return sound


_INTS = {int}
