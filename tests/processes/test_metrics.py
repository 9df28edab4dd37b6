"""What broker, workers, gateway and clients show Prometheus, and docs/metrics.md of it."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.helpers.cluster import Cluster, children, free_port
from tests.helpers.scrape import families, labels_of, page, value
from tests.helpers.waiting import until
from zstreamer import Client, errors, series
from zstreamer.client.status import fetch
from zstreamer.config import GatewayConfig
from zstreamer.metrics import ClientCollector
from zstreamer.system.process import Process

ROOT = Path(__file__).parents[2]
PORTS = {name: free_port() for name in ("broker", "worker", "gateway")}


@pytest.fixture(scope="module")
def cluster():
    with Cluster(http_port=PORTS["broker"]) as cluster:
        cluster.worker("Costly", model="costly", metrics_port=PORTS["worker"], max_batch_cost=20.0)
        config = GatewayConfig(
            broker=(cluster.address,), port=PORTS["gateway"], model="costly", log_level="error"
        )
        with Process("zstreamer.web.gateway.parent", config):
            with cluster.client(model="costly") as client:
                client.wait_ready(30)
            yield cluster


@pytest.fixture
def client(cluster):
    with cluster.client(model="costly") as client:
        yield client


def test_the_document_lists_every_series_that_is_served_and_no_other(cluster, client):
    client.predict(["one", "three"])
    with pytest.raises(errors.ModelNotFound):
        client.predict(["x"], model="nobody's")
    document = (ROOT / "docs/metrics.md").read_text()
    assert document == series.written_into(document), "python -m tests.processes.test_metrics"
    served = {name: families(page(port)) for name, port in PORTS.items()}
    for name, catalog in {**series.PAGES, "gateway": series.GATEWAY + series.CLIENT}.items():
        if name == "client":
            continue
        assert set(served[name]) == {each.name for each in catalog}
        for each in catalog:
            found = served[name][each.name]
            assert found.type == each.kind
            assert labels_of(found) in (set(each.labels), None)
            assert found.documentation == each.words


def test_the_broker_sums_up_what_workers_tell_of_their_batches(cluster, client):
    def told():
        fetch(cluster.address, look=True)  # a scrape alone has them asked every five seconds
        return page(PORTS["broker"])

    def count(text):
        return value(text, "zstreamer_batch_items_count", model="costly") or 0

    until(lambda: told() and "batches" in cluster.model("costly")["workers"][0])
    before = told()
    client.predict(["a" * 5] * 10)
    text = until(lambda: count(found := told()) > count(before) and found)
    assert value(text, "zstreamer_batches_closed_total", model="costly", reason="cost") > 0
    padded = value(text, "zstreamer_batch_padded_cost_total", model="costly")
    assert padded >= value(text, "zstreamer_batch_cost_total", model="costly") > 0


def test_the_broker_tells_what_became_of_items_and_why_others_were_refused(cluster, client):
    before = page(PORTS["broker"])
    client.predict(["a" * 5] * 10)
    with pytest.raises(errors.ModelNotFound):
        client.predict(["x"], model="nobody's")
    slow = cluster.worker("nap", model="nap", batch_size=1)
    with cluster.client(model="nap") as napping:
        napping.wait_ready(30)
        running = napping.submit([0.6, 0.0])
        until(lambda: value(page(PORTS["broker"]), "zstreamer_running_items", model="nap"))
        (child,) = children(slow)
        subprocess.run(["kill", "-9", str(child)], check=True)
        running.result()
        given_up = napping.submit([0.5, 0.5, 0.5, 0.5])
        until(lambda: value(page(PORTS["broker"]), "zstreamer_queue_items", model="nap"))
        until(lambda: value(page(PORTS["broker"]), "zstreamer_queue_oldest_seconds", model="nap"))
        given_up.cancel()
    text = page(PORTS["broker"])
    ok = {"model": "costly", "outcome": "ok"}
    items = "zstreamer_items_total"
    assert value(text, items, **ok) - value(before, items, **ok) == 10
    admitted = "zstreamer_items_admitted_total"
    assert value(text, admitted, model="costly") - value(before, admitted, model="costly") == 10
    assert value(text, "zstreamer_items_refused_total", model="", reason="model_not_found") >= 1
    until(lambda: value(page(PORTS["broker"]), items, model="nap", outcome="cancelled") >= 2)
    assert value(text, "zstreamer_items_redispatched_total", model="nap") >= 1
    assert value(text, "zstreamer_model_failures_total", model="nap") == 1
    assert value(text, "zstreamer_queue_seconds_count", model="costly") >= 10
    assert value(text, "zstreamer_item_seconds_count", model="costly") >= 10
    assert value(text, "zstreamer_workers", model="nap", state="warm") == 1
    assert value(text, "zstreamer_wanted_workers", model="costly") >= 1


def test_a_worker_tells_why_batches_were_closed_and_how_much_is_padding(cluster, client):
    client.predict(["a" * 10, "b"] * 20)
    text = page(PORTS["worker"])
    closed = "zstreamer_worker_batches_closed_total"
    assert value(text, closed, reason="cost") >= 1, "20 of cost hold two items of 10"
    cost = value(text, "zstreamer_worker_batch_cost_total")
    padded = value(text, "zstreamer_worker_batch_padded_cost_total")
    assert 0 < cost <= padded
    assert value(text, "zstreamer_worker_items_total", outcome="ok") >= 40
    batches = value(text, "zstreamer_worker_batch_items_count")
    assert batches == sum(
        sample.value for sample in families(text)[closed].samples if sample.name == closed
    )
    assert value(text, "zstreamer_worker_predict_seconds_count") <= batches


def test_a_client_tells_of_its_calls_in_the_programs_own_registry(cluster):
    registry = CollectorRegistry()
    with Client(cluster.address, model="costly") as client:
        ClientCollector(client, registry=registry)
        callers = [threading.Thread(target=client.predict, args=(["x", "y"],)) for _ in range(10)]
        for each in callers:
            each.start()
        for each in callers:
            each.join()
        outcomes = client.predict(["x", None], return_exceptions=True)
        with pytest.raises(errors.ModelNotFound):
            client.predict(["x"], model="nobody's")
        assert isinstance(outcomes[1], errors.PredictError)
        text = generate_latest(registry).decode()
    assert set(families(text)) == {each.name for each in series.CLIENT}
    calls, items = "zstreamer_client_calls_total", "zstreamer_client_items_total"
    assert value(text, calls, model="costly", outcome="ok") == 11
    assert value(text, calls, model="", outcome="model_not_found") == 1
    assert value(text, items, model="costly", outcome="ok") == 21
    assert value(text, items, model="costly", outcome="predict_failed") == 1
    assert value(text, "zstreamer_client_call_seconds_count", model="costly") == 11
    assert value(text, "zstreamer_client_brokers") == 1
    closed = generate_latest(registry).decode()
    assert value(closed, calls, model="costly", outcome="ok") == 11, "a closed client's calls stay"


APP = """
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
import zstreamer
from zstreamer.metrics import ClientCollector

client = zstreamer.Client({address!r}, model="costly")
ClientCollector(client)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        body = repr(client.predict(["x"])).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_gunicorns_processes_tell_of_the_calls_of_all(cluster, tmp_path, kind):
    (tmp_path / "program.py").write_text(APP.format(address=cluster.address))
    (tmp_path / "shared").mkdir()
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-k", kind, "-w", "2", "--threads", "4"]
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "shared"), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "-b", f"127.0.0.1:{port}", "--log-level", "error", "program:app"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", **environment},
    ) as server:
        try:
            until(lambda: _answers(port), 20)
            for _ in range(20):
                page(port, "/")
            told = "zstreamer_client_calls_total"
            until(lambda: value(_answers(port), told, model="costly", outcome="ok") >= 20)
            count = "zstreamer_client_call_seconds_count"
            until(lambda: value(_answers(port), count, model="costly") >= 20)
        finally:
            server.terminate()


def _answers(port):
    """Its page; empty while it does not answer, or another process just begins its file."""
    try:
        return page(port)
    except OSError:
        return ""


def test_queries_and_names_in_documents_are_of_series_that_exist():
    known = {each.name for catalog in series.PAGES.values() for each in catalog}
    known |= {f"{each}_{end}" for each in known for end in ("bucket", "sum", "count")}
    for path in ("docs/metrics.md", "docs/autoscaling.md", "docs/runbook.md", "docs/web.md"):
        named = set(re.findall(r"\bzstreamer_[a-z_]+[a-z]\b", (ROOT / path).read_text()))
        assert named <= known | {"zstreamer_http"}, path


if __name__ == "__main__":
    found = ROOT / "docs/metrics.md"
    found.write_text(series.written_into(found.read_text()))
