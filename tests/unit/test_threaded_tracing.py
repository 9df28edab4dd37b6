"""The spans of a `ThreadedStreamer`, as an SDK exports them."""

from __future__ import annotations

import threading

import pytest

from tests.unit.test_tracing import PARENT, TRACE, parent_of, spans, written
from zstreamer import ThreadedStreamer, errors
from zstreamer.local.traces import Traces
from zstreamer.tracing.context import Under, of_headers

__all__ = ["spans"]  # a fixture

OTHER = "7" * 32
UNSAMPLED = of_headers(f"{PARENT[:-2]}00")


def under(trace, span=1):
    return Under(of_headers(f"00-{trace}-{span:016x}-01"))


def named(exporter, trace=TRACE):
    """The spans of one trace that have ended, by name; one of each."""
    found = [s for s in exporter.get_finished_spans() if f"{s.context.trace_id:032x}" == trace]
    by_name = {span.name.removeprefix("zstreamer "): span for span in found}
    assert len(by_name) == len(found)
    return by_name


class Picky:
    """Runs a batch when it is let to; an item that is None fails."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def predict(self, batch):
        self.begun.release()
        assert self.let.acquire(timeout=20)
        return [ValueError("none") if item is None else item for item in batch]


@pytest.fixture
def model():
    return Picky()


@pytest.fixture
def streamer(model):
    with ThreadedStreamer(model.predict, 8, 0.0) as streamer:
        yield streamer
        for _ in range(8):  # whatever still waits at its end
            model.let.release()


def test_a_call_is_seen_from_its_start_through_the_queue_to_the_models_run(spans):
    from zstreamer.tracing import otel

    def predict(batch):
        with otel._tracer.start_as_current_span("zstreamer own"):
            return [2 * item for item in batch]

    with Under(of_headers(PARENT)), ThreadedStreamer(predict, 8) as streamer:
        assert streamer.predict([1, 2]) == [2, 4]
    found = named(spans)
    call, queue, batch, model = (found[name] for name in ("call", "queue", "batch", "model"))
    assert parent_of(call) == PARENT[3:52]
    assert parent_of(queue) == parent_of(batch) == written(call)
    assert parent_of(model) == written(batch) and parent_of(found["own"]) == written(model)
    assert [written(link) for link in batch.links] == [written(call)]
    assert dict(call.attributes) == {"zstreamer.model": "default", "zstreamer.items": 2}
    assert batch.attributes["zstreamer.batch_size"] == 2
    assert call.start_time <= queue.start_time <= queue.end_time == batch.start_time
    assert batch.start_time <= model.start_time <= model.end_time <= batch.end_time <= call.end_time


def test_a_batch_of_several_calls_is_linked_to_all_and_each_has_its_queue(spans, streamer, model):
    first = streamer.submit([0])
    assert model.begun.acquire(timeout=20)
    with under(TRACE):
        one = streamer.submit([1, 2])
    with under(OTHER):
        two = streamer.submit([None])
    with Under(UNSAMPLED):
        untraced = streamer.submit([4])
    for _ in range(2):
        model.let.release()
    assert (first.result(20), one.result(20), untraced.result(20)) == ([0], [1, 2], [4])
    with pytest.raises(errors.PredictError):
        two.result(20)
    mine, other = named(spans), named(spans, OTHER)
    assert mine["batch"].attributes["zstreamer.batch_size"] == 4
    traces = {f"{link.context.trace_id:032x}" for link in mine["batch"].links}
    assert traces == {TRACE, OTHER}
    assert mine["model"].attributes["zstreamer.items"] == 2 and mine["model"].status.is_unset
    assert [written(link) for link in other["model"].links] == [written(mine["batch"])]
    assert other["model"].attributes["error.type"] == "ValueError"
    assert other["call"].attributes["zstreamer.failed_items"] == 1
    assert not other["call"].status.is_ok
    for found in (mine, other):  # both waited for the batch before
        assert found["queue"].start_time < found["queue"].end_time
        assert parent_of(found["queue"]) == written(found["call"])


def test_a_call_that_waits_when_its_streamer_is_closed_ends_with_the_reason(spans, streamer, model):
    with Under(UNSAMPLED):
        streamer.submit([0])
    assert model.begun.acquire(timeout=20)
    with under(TRACE):
        waits = streamer.submit([1])
    closing = threading.Thread(target=streamer.close)
    closing.start()
    assert isinstance(waits.exception(20), errors.Cancelled)
    model.let.release()
    closing.join(20)
    [call] = spans.get_finished_spans()
    assert (call.name, call.attributes["error.type"]) == ("zstreamer call", "cancelled")


def test_a_job_belongs_to_the_span_in_which_it_was_begun(spans):
    with ThreadedStreamer(lambda batch: batch, 8) as streamer:
        with under(TRACE, 5):
            outputs = streamer.map([1, 2])
        assert list(outputs) == [1, 2]
    calls = [span for span in spans.get_finished_spans() if span.name == "zstreamer call"]
    assert calls and {parent_of(span) for span in calls} == {f"{TRACE}-{5:016x}"}


def test_calls_that_are_not_sampled_make_no_spans_and_batches_do_not_look_for_any(
    spans, monkeypatch
):
    looked, begin = [], Traces.batch

    def look(*given):
        looked.append(begin(*given))
        return looked[-1]

    monkeypatch.setattr(Traces, "batch", look)
    with (
        Under(UNSAMPLED),
        ThreadedStreamer(lambda batch: batch, 8) as streamer,
    ):
        assert streamer.predict([1]) == [1]
    assert looked == [None]
    assert not spans.get_finished_spans()
