"""The contexts of traces in SUBMIT and WORK, as they are read."""

from __future__ import annotations

from zstreamer.wire.messages import MAX_TRACEPARENT, MAX_TRACESTATE, ProtocolError, Traced


def decoded(rows: object) -> list[Traced]:
    """Return the rows of a message's last field.

    Raises:
        ProtocolError: they are malformed.
    """
    if type(rows) is not list:
        raise ProtocolError("traces are not a list")
    traces = [Traced(*row) for row in rows]
    for parent, state, ids, waited in traces:
        if not (type(parent) is type(state) is str and type(waited) is int and type(ids) is list):
            raise ProtocolError("malformed trace")
        if len(parent) > MAX_TRACEPARENT or len(state) > MAX_TRACESTATE or waited < 0:
            raise ProtocolError("the context of a trace is out of bounds")
        if not set(map(type, ids)) <= _INTS:
            raise ProtocolError("ids of a trace are not integers")
    return traces


_INTS = {int}
