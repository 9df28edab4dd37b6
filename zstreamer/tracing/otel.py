"""Spans, made with OpenTelemetry's API. Without an SDK behind it, its spans record nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

import zstreamer
from zstreamer import failure
from zstreamer.errors import ZStreamerError
from zstreamer.tracing import context
from zstreamer.tracing.context import CallTrace, TraceContext, Waiting

_tracer = trace.get_tracer("zstreamer", zstreamer.__version__)


def current() -> TraceContext | None:
    """Return the context of the current span; None where there is none."""
    span = trace.get_current_span().get_span_context()
    return _written(span) if span.is_valid else None


def begin_call(model: str, items: int) -> CallTrace | None:
    """Return the trace of a call; None where it is not sampled."""
    parent: Context | None = None
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        if not span.trace_flags.sampled:
            return None
    elif (received := context.received()) is not None:
        if not received.sampled:
            return None
        parent = _around(received)
    attributes: dict[str, str | int] = {"zstreamer.model": model, "zstreamer.items": items}
    own = _tracer.start_span("zstreamer call", parent, SpanKind.CLIENT, attributes)
    made = own.get_span_context()  # without an SDK it is the parent's
    if not made.is_valid:  # and with an older API it is nobody's
        passed = current() or context.received()
        return CallTrace(passed) if passed is not None else None
    if not made.trace_flags.sampled:
        return None
    return CallTrace(_written(made), partial(_end_call, own) if own.is_recording() else None)


def _end_call(span: Span, error: ZStreamerError | None, failed: int) -> None:
    if failed:
        span.set_attribute("zstreamer.failed_items", failed)
    if error is not None:
        _fail(span, error)
    span.end()


class BatchSpans:
    """The spans of one batch; as a context manager, the model's is the current span.

    Args:
        model: the name that clients ask for.
        items: one for each item of the batch, None for those that are not traced.
    """

    def __init__(self, model: str, items: Sequence[Waiting | None]) -> None:
        self._calls: dict[TraceContext, list[int]] = {}
        for position, item in enumerate(items):
            if item is not None:
                self._calls.setdefault(item.context, []).append(position)
        self._attributes: dict[str, str | int] = {"zstreamer.model": model}
        firsts = {each: items[positions[0]] for each, positions in self._calls.items()}
        for call, first in firsts.items():
            if first is not None:
                self._queue(call, first)
        parents = {call: _around(call) for call in self._calls}
        self._batch = _tracer.start_span(
            "zstreamer batch",
            next(iter(parents.values())),
            SpanKind.CONSUMER,
            {**self._attributes, "zstreamer.batch_size": len(items)},
            [Link(_span_context(call)) for call in self._calls],
            min(item.arrived for item in items if item is not None),
        )
        link = [Link(self._batch.get_span_context())]
        first_call = next(iter(self._calls))
        parents[first_call] = trace.set_span_in_context(self._batch)
        self._models = {
            call: _tracer.start_span(
                "zstreamer model",
                parent,
                attributes={**self._attributes, "zstreamer.items": len(self._calls[call])},
                links=() if call is first_call else link,
            )
            for call, parent in parents.items()
        }
        self._first = self._models[first_call]

    def _queue(self, call: TraceContext, first: Waiting) -> None:
        begun = first.arrived - int(first.waited * 1e9)
        attributes = {**self._attributes, "zstreamer.items": len(self._calls[call])}
        span = _tracer.start_span(
            "zstreamer queue", _around(call), attributes=attributes, start_time=begun
        )
        span.end(first.arrived)

    def __enter__(self) -> None:
        self._token = attach(trace.set_span_in_context(self._first))

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        detach(self._token)
        if error is not None:
            for span in (*self._models.values(), self._batch):
                _fail(span, error)
            self._end()

    def end(self, outputs: Sequence[object]) -> None:
        """End the spans; outputs: those of the whole batch, with errors in their places."""
        for call, span in self._models.items():
            own = (outputs[position] for position in self._calls[call])
            if failed := [each for each in own if isinstance(each, BaseException)]:
                span.set_attribute("zstreamer.failed_items", len(failed))
                _fail(span, failed[0])
        self._end()

    def _end(self) -> None:
        for span in self._models.values():
            span.end()
        self._batch.end()


def _fail(span: Span, error: BaseException) -> None:
    kind = error.kind if isinstance(error, ZStreamerError) else type(error).__qualname__
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, failure.message(error)))


def _around(call: TraceContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(_span_context(call)))


def _span_context(call: TraceContext) -> SpanContext:
    state = TraceState.from_header([call.tracestate]) if call.tracestate else None
    return SpanContext(call.trace_id, call.span_id, True, TraceFlags(call.flags), state)


def _written(span: SpanContext) -> TraceContext:
    state = context.sendable(span.trace_state.to_header()) if span.trace_state else ""
    text = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return TraceContext(text, state)
