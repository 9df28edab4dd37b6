"""Spans of real processes, which a collector receives over OTLP."""

import asyncio

import pytest

pytest.importorskip("opentelemetry.exporter.otlp", reason="needs an OTLP exporter")

from tests.helpers import models
from tests.helpers.otlp import Collector
from tests.helpers.servers import Server
from zstreamer import Streamer
from zstreamer.aio import Client as AsyncClient
from zstreamer.tracing.context import Under, of_headers

MODEL = "traced"


@pytest.fixture(scope="module")
def collector(shared):
    """What the worker of the model and the gateway export to, and the gateway's own server."""
    with Collector() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        worker = shared.worker("double", model=MODEL, tracing="otlp")
        options = ("--broker", shared.address, "--tracing", "otlp", "--log-level", "warning")
        with worker, Server("zstreamer", "gateway", *options) as collector.gateway:
            shared.wait_warm(1, MODEL)
            yield collector


def context(number):
    return of_headers(f"00-{number:032x}-{number:016x}-01", "vendor=value")


def test_a_request_with_a_traceparent_is_seen_through_all_processes(collector):
    parent = context(0xA1)
    headers = {"traceparent": parent.traceparent, "tracestate": parent.tracestate}
    response = collector.gateway.predict(1, 2, model=MODEL, headers=headers)
    assert response.json() == {"predictions": [2, 4]}
    found = collector.wait_for(f"{0xA1:032x}", 4)
    call, queue, batch, model = (
        found[f"zstreamer {name}"] for name in ("call", "queue", "batch", "model")
    )
    assert call.parent == f"{0xA1:016x}" and call.service == "zstreamer-gateway"
    assert queue.parent == batch.parent == call.id
    assert model.parent == batch.id
    assert batch.links == [(call.trace, call.id)]
    assert {each.service for each in (queue, batch, model)} == {"zstreamer-worker"}
    assert model.seconds <= batch.seconds <= call.seconds


def test_what_is_not_sampled_makes_no_spans(collector):
    headers = {"traceparent": f"00-{0xA2:032x}-{0xA2:016x}-00"}
    assert collector.gateway.predict(1, model=MODEL, headers=headers).is_success
    collector.gateway.predict(1, model=MODEL, headers={"traceparent": context(0xA3).traceparent})
    collector.wait_for(f"{0xA3:032x}", 4)
    assert not [span for span in collector.spans if span.trace == f"{0xA2:032x}"]


def test_clients_pass_on_the_trace_that_they_are_called_in(collector, shared):
    with shared.client(model=MODEL) as client:
        with Under(context(0xB1)):
            future = client.submit([1])
        with Under(context(0xB2)):
            outputs = client.map([1, 2, 3])
        assert future.result(20) == [2] and list(outputs) == [2, 4, 6]

    async def ask():
        async with AsyncClient(shared.address, model=MODEL) as client:
            with Under(context(0xB3)):
                assert await client.predict([1]) == [2]

    asyncio.run(ask())
    for number in (0xB1, 0xB2, 0xB3):
        found = collector.wait_for(f"{number:032x}", 3)
        assert found["zstreamer queue"].parent == f"{number:016x}"


def test_the_workers_of_a_streamer_export_what_the_variable_says(collector, monkeypatch):
    monkeypatch.setenv("ZSTREAMER_TRACING", "otlp")
    with Streamer(models.double, 4) as streamer, Under(context(0xD1)):
        assert streamer.predict([1]) == [2]
    found = collector.wait_for(f"{0xD1:032x}", 3)
    assert found["zstreamer queue"].parent == f"{0xD1:016x}"
    assert found["zstreamer model"].parent == found["zstreamer batch"].id


def test_a_worker_that_drains_sends_its_last_spans(collector, shared, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    with shared.worker("double", model="drains", tracing="otlp") as worker:
        shared.wait_warm(1, "drains")
        with shared.client(model="drains") as client, Under(context(0xC1)):
            client.predict([1])
        worker.terminate()
        assert worker.wait(20) == 0
    collector.wait_for(f"{0xC1:032x}", 3)


def test_tracing_that_cannot_be_set_up_is_said(shared):
    with shared.worker("double", model="broken", tracing="no_such:function") as worker:
        assert worker.wait(20)
    words = str(shared.model("broken"))
    assert "no_such" in words and "give otlp" in words
