"""The span of a call, from the moment it is made until its last answer is there."""

from __future__ import annotations

import sys

from zstreamer.tracing import context
from zstreamer.tracing.context import CallTrace, TraceContext

API = "opentelemetry.trace"
"""The module that a program has imported where it may trace; else nothing is looked at."""


def begin(model: str, items: int) -> CallTrace | None:
    """Return the trace of a call that is made here; None for nearly all calls.

    The call belongs to the current span of OpenTelemetry's context, else to what
    `zstreamer.tracing.context` has received, else it begins a trace.
    """
    if uses_api():
        from zstreamer.tracing import otel

        return otel.begin_call(model, items)
    received = context.received()
    return CallTrace(received) if received is not None and received.sampled else None


def here() -> TraceContext | None:
    """Return the context in which a call would be made here, for calls that are made elsewhere."""
    if uses_api():
        from zstreamer.tracing import otel

        return otel.current() or context.received()
    return context.received()


def uses_api() -> bool:
    """Whether the program has imported OpenTelemetry's API, as one that traces has."""
    api = sys.modules.get(API)
    return api is not None and hasattr(api, "get_current_span")  # another thread may import it
