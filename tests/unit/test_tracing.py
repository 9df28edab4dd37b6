"""Traces: contexts as text, what the cores carry of them, and the spans that are made."""

from __future__ import annotations

import time

import pytest

from tests.unit.test_broker_core import Room
from zstreamer import errors
from zstreamer.client.core import ClientCore
from zstreamer.client.settings import Settings
from zstreamer.tracing import batch, call
from zstreamer.tracing.context import TraceContext, Under, Waiting, of_headers
from zstreamer.wire import protocol
from zstreamer.wire.link import Send
from zstreamer.wire.messages import MAX_TRACESTATE
from zstreamer.wire.protocol import ProtocolError, Role, Run, Traced

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
OTHER = f"00-{'7' * 32}-{'8' * 16}-01"
EXTENDED = {"extensions": ["traces"]}


# Contexts


def test_a_header_names_a_context():
    context = of_headers(f" {PARENT} ", "vendor=a,other=b")
    assert context == (PARENT, "vendor=a,other=b")
    assert context.sampled and context.trace_id == int(TRACE, 16)
    assert context.span_id == int(SPAN, 16)
    assert not of_headers(f"00-{TRACE}-{SPAN}-00").sampled


def test_a_later_version_is_read_as_far_as_it_is_known():
    assert of_headers(f"01-{TRACE}-{SPAN}-01-more") == (PARENT, "")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
    ],
)
def test_a_malformed_header_is_ignored(header):
    assert of_headers(header) is None


def test_a_tracestate_that_cannot_be_sent_on_is_left_out():
    assert of_headers(PARENT, "a=" + "b" * 600) == (PARENT, "")
    assert of_headers(PARENT, "a=\x00") == (PARENT, "")


# The wire


def test_messages_without_traces_are_those_of_before():
    run = Run("m", 0, 0, 0, [1], [1], [b""])
    assert protocol.submit(0, [run], [], []) == protocol.submit(0, [run], [])
    assert protocol.work(0, [1], [1], [b""], [], None, []) == protocol.work(0, [1], [1], [b""], [])


def test_traces_come_out_as_they_went_in():
    run = Run("m", 0, 0, 0, [1], [1], [b""])
    frames = protocol.submit(0, [run], [], [Traced(PARENT, "a=b", [1])])
    assert protocol.decode(frames).traces == [(PARENT, "a=b", [1], 0)]
    frames = protocol.work(0, [1], [1], [b""], [], None, [Traced(PARENT, "", [1], 5)])
    assert protocol.decode(frames).traces == [(PARENT, "", [1], 5)]


@pytest.mark.parametrize("row", [(PARENT, "", ["1"]), (PARENT, 5, [1]), (PARENT, "", 1)])
def test_malformed_traces_are_no_message(row):
    run = Run("m", 0, 0, 0, [1], [1], [b""])
    frames = protocol.submit(0, [run], [], [row])
    with pytest.raises(ProtocolError):
        protocol.decode(frames)


@pytest.mark.parametrize(
    ("parent", "state", "waited"),
    [
        (f"01-{TRACE}-{SPAN}-01-{'x' * 100}", "", 0),
        ("nonsense", "", 0),
        (PARENT, "a=" + "x" * 600, 0),
        (PARENT, "", -1),
    ],
)
def test_a_context_out_of_bounds_costs_no_more_than_the_trace(parent, state, waited):
    bad, good = Traced(parent, state, [1], waited), Traced(PARENT, "a=b", [2], 5)
    frames = protocol.work(0, [1, 2], [9, 9], [b"", b""], [], None, [bad, good])
    assert protocol.decode(frames) == protocol.Work(0, [1, 2], [9, 9], [b"", b""], [], [good])
    if waited == 0:
        run = Run("m", 0, 0, 0, [1, 2], [9, 9], [b"", b""])
        message = protocol.decode(protocol.submit(0, [run], [], [bad, good]))
        assert message == protocol.Submit(0, [run], [good._replace(waited=0)])


@pytest.mark.parametrize(
    "rows",
    [[(PARENT, "", [1, 1, 1])], [(PARENT, "", [1, 2]), (OTHER, "", [1])], 3 * [(PARENT, "", [])]],
)
def test_traces_name_no_more_than_the_items_of_their_message(rows):
    run = Run("m", 0, 0, 0, [1, 2], [9, 9], [b"", b""])
    work = protocol.work(0, [1, 2], [9, 9], [b"", b""], [], None, [Traced(*row) for row in rows])
    for frames in (protocol.submit(0, [run], [], rows), work):
        with pytest.raises(ProtocolError):
            protocol.decode(frames)


# The broker


def room(worker_knows=True):
    """A broker with a client that knows the extension, and a worker that may."""
    room = Room()
    room.from_client("c", protocol.hello(protocol.Hello(Role.CLIENT, 5, EXTENDED)))
    info = {"model": "default", "batch_size": 4, "pool": 0, **(EXTENDED if worker_knows else {})}
    room.from_worker("w", protocol.hello(protocol.Hello(Role.WORKER, 6, info)))
    room.take("w")
    return room


def submit(room):
    run = Run("default", 0, 0, 0, [1, 2, 3], [9000] * 3, [b"in"] * 3)
    traces = [Traced(PARENT, "a=b", [1, 3])]
    room.from_client("c", protocol.submit(0, [run], [], traces))


def test_a_broker_says_which_extensions_it_knows_to_those_who_ask():
    room = Room()
    assert room.client("old").extensions == ()
    room.from_client("new", protocol.hello(protocol.Hello(Role.CLIENT, 5, EXTENDED)))
    assert room.take("new")[0].extensions == ["traces"]


def test_work_says_whose_traces_items_belong_to_and_how_long_they_were_queued():
    here = room()
    submit(here)
    here.turn(0.5)
    here.state("w", protocol.WorkerState.WARM)
    [work] = here.take("w")
    first, _, third = work.tickets
    assert work.traces == [(PARENT, "a=b", [first, third], 500_000)]


def test_a_worker_that_knows_no_traces_gets_none():
    here = room(worker_knows=False)
    submit(here)
    here.state("w", protocol.WorkerState.WARM)
    [work] = here.take("w")
    assert len(work.tickets) == 3 and work.traces == ()


def test_an_item_that_runs_again_keeps_its_trace():
    here = room()
    submit(here)
    here.state("w", protocol.WorkerState.WARM)
    [work] = here.take("w")
    here.report("w", work.tickets[2], outcome=[protocol.Fate.RETURNED, "", {}])
    [again] = here.take("w")
    assert again.traces == [(PARENT, "a=b", again.tickets, 0)]


# The client


def sent(extensions):
    """What a client sends of a traced and of another call to a broker with these extensions."""
    core = ClientCore(["tcp://a:1"], 7, 5.0, 0.0, lambda: 0.5)
    settings = Settings("tcp://a:1", "m", 20.0, 5.0, "", 0.5, 2.0)
    with Under(of_headers(PARENT, "a=b")):
        core.submit(settings.call(["one", "two"], None, None, 0, True, False))
    core.submit(settings.call(["three"], None, None, 0, True, False))
    now = time.monotonic()
    core.poll(now)
    [link] = core.links
    core.on_connected(now, link)
    welcome = protocol.Welcome(1, False, [], 100, 10**6, 10**6, extensions)
    core.on_message(now, link, protocol.plain(welcome))
    actions = [each for each in core.poll(now) if isinstance(each, Send)]
    return protocol.decode(actions[-1].frames)


def test_a_client_names_the_items_of_traced_calls_to_a_broker_that_knows_traces():
    message = sent(["traces"])
    assert message.traces == [(PARENT, "a=b", [1, 2], 0)]
    assert message.runs[0].ids == [1, 2, 3]


def test_a_client_sends_no_traces_to_another():
    assert sent(()).traces == ()


def test_a_call_that_is_not_sampled_is_not_traced():
    with Under(of_headers(f"00-{TRACE}-{SPAN}-00")):
        assert call.begin("m", 1) is None
    assert call.begin("m", 1) is None


# Spans


@pytest.fixture
def spans(monkeypatch):
    """The spans that end, as an SDK exports them."""
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from zstreamer.tracing import otel

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(otel, "_tracer", provider.get_tracer("zstreamer"))
    return exporter


def parent_of(span):
    return f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}"


def written(span):
    return f"{span.context.trace_id:032x}-{span.context.span_id:016x}"


def test_a_call_is_a_span_below_the_one_that_it_is_made_in(spans):
    from zstreamer.tracing import otel

    with otel._tracer.start_as_current_span("request") as request:
        trace = call.begin("m", 3)
        assert call.here().traceparent[3:52] == written(request)
    trace.end(errors.Overloaded("too much", retry_after=1.0), 2)
    span = spans.get_finished_spans()[-1]
    assert span.name == "zstreamer call" and parent_of(span) == written(request)
    assert trace.context.traceparent[3:52] == written(span)
    assert dict(span.attributes) == {
        "zstreamer.model": "m",
        "zstreamer.items": 3,
        "zstreamer.failed_items": 2,
        "error.type": "overloaded",
    }
    assert not span.status.is_ok


def test_a_call_belongs_to_what_a_door_has_received(spans):
    with Under(of_headers(PARENT)):
        call.begin("m", 1).end(None, 0)
    [span] = spans.get_finished_spans()
    assert parent_of(span) == PARENT[3:52] and not span.attributes.get("error.type")


def test_a_call_below_no_span_begins_a_trace(spans):
    call.begin("m", 1).end(None, 0)
    [span] = spans.get_finished_spans()
    assert span.parent is None


def test_a_batch_is_of_the_first_call_and_linked_to_all(spans):
    from zstreamer.tracing import otel

    arrived = time.time_ns()
    one, two = TraceContext(PARENT), TraceContext(OTHER)
    items = [None, Waiting(one, 0.25, arrived), Waiting(two, 0.5, arrived), Waiting(one, 0.25, 0)]
    made = batch.begin("m", items)
    with made:
        with otel._tracer.start_as_current_span("of the model's own"):
            pass
    made.end(["a", "b", ValueError("bad"), "d"])
    found = {(span.name, span.context.trace_id): span for span in spans.get_finished_spans()}
    names = [name for name, _ in found]
    assert names.count("zstreamer queue") == names.count("zstreamer model") == 2
    first, second = one.trace_id, two.trace_id
    whole = found["zstreamer batch", first]
    assert parent_of(whole) == PARENT[3:52]
    assert whole.attributes["zstreamer.batch_size"] == 4
    assert {link.context.trace_id for link in whole.links} == {first, second}
    mine, other = found["zstreamer model", first], found["zstreamer model", second]
    assert parent_of(mine) == written(whole)
    assert mine.attributes["zstreamer.items"] == 2 and mine.status.is_unset
    assert parent_of(found["of the model's own", first]) == written(mine)
    assert parent_of(other) == OTHER[3:52]
    assert [written(link) for link in other.links] == [written(whole)]
    assert other.attributes["error.type"] == "ValueError"
    queue = found["zstreamer queue", second]
    assert queue.end_time == arrived and queue.end_time - queue.start_time == 500_000_000


def test_a_batch_without_traced_items_makes_no_spans(spans):
    assert batch.begin("m", [None, None]) is None


def test_without_an_sdk_a_call_passes_on_what_it_belongs_to():
    pytest.importorskip("opentelemetry.trace", reason="needs the extra otel")
    with Under(of_headers(PARENT, "a=b")):
        assert call.begin("m", 1).context == (PARENT, "a=b")
    assert call.begin("m", 1) is None


def test_a_span_with_a_tracestate_that_no_broker_takes_is_named_without_it(spans):
    from opentelemetry import trace as api

    state = api.TraceState([("a", "x" * 250), ("b", "y" * 250), ("c", "z" * 20)])
    assert len(state.to_header()) > MAX_TRACESTATE
    outer = api.SpanContext(int(TRACE, 16), int(SPAN, 16), True, api.TraceFlags(1), state)
    with api.use_span(api.NonRecordingSpan(outer)):
        assert call.here() == (PARENT, "")
        assert call.begin("m", 1).context.tracestate == ""
