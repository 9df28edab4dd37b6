"""The context of a trace, as the headers of W3C Trace Context write it, and what has one.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import NamedTuple

from zstreamer.errors import ZStreamerError
from zstreamer.wire.messages import MAX_TRACESTATE
from zstreamer.wire.traces import TRACEPARENT

_ZEROS = ("0" * 32, "0" * 16)


class TraceContext(NamedTuple):
    """Which span others belong to.

    `traceparent` has the form of version 00, whatever version came.
    """

    traceparent: str
    tracestate: str = ""

    @property
    def trace_id(self) -> int:
        """The trace's number, of 128 bits."""
        return int(self.traceparent[3:35], 16)

    @property
    def span_id(self) -> int:
        """The span's number, of 64 bits."""
        return int(self.traceparent[36:52], 16)

    @property
    def flags(self) -> int:
        """Its flags; bit 0 says that it is sampled."""
        return int(self.traceparent[53:55], 16)

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded."""
        return bool(self.flags & 1)


def of_headers(traceparent: str | None, tracestate: str | None = None) -> TraceContext | None:
    """Return the context that two headers name; None where there is none, or it is malformed.

    A malformed one is no reason to refuse a request: the specification asks to ignore it.
    """
    found = TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _ZEROS[0]:
        return None
    if span_id == _ZEROS[1]:
        return None
    return TraceContext(f"00-{trace_id}-{span_id}-{flags}", sendable((tracestate or "").strip()))


def sendable(tracestate: str) -> str:
    """Return the tracestate; nothing where a broker would not take it.

    The specification allows to drop it. The trace goes on without it.
    """
    fits = len(tracestate) <= MAX_TRACESTATE
    return tracestate if fits and tracestate.isascii() and tracestate.isprintable() else ""


class CallTrace:
    """A call that is recorded.

    Args:
        context: what the broker and the worker are told; their spans belong to it.
        end: ends the call's own span, see below; None where this process only passes a context on.
    """

    __slots__ = ("_end", "context")

    def __init__(
        self,
        context: TraceContext,
        end: Callable[[ZStreamerError | None, int], None] | None = None,
    ) -> None:
        self.context = context
        self._end = end

    def end(self, error: ZStreamerError | None, failed: int) -> None:
        """The call has ended.

        Args:
            error: what it failed with; None where it did not.
            failed: how many of its items have an error in their place.
        """
        if self._end is not None:
            self._end(error, failed)


class Waiting(NamedTuple):
    """A traced item that waits for its batch.

    Attributes:
        context: of its call.
        waited: seconds that it was queued at the broker.
        arrived: when it came here, in nanoseconds of `time.time_ns`.
    """

    context: TraceContext
    waited: float
    arrived: int


_received: ContextVar[TraceContext | None] = ContextVar("zstreamer_trace", default=None)


def received() -> TraceContext | None:
    """Return the context under which a call is made that no span of this process holds."""
    return _received.get()


class Under:
    """A block whose calls belong to a trace that came from elsewhere; None for no trace."""

    __slots__ = ("_context", "_token")

    _token: Token[TraceContext | None]

    def __init__(self, context: TraceContext | None) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = _received.set(self._context)

    def __exit__(self, *_: object) -> None:
        _received.reset(self._token)
