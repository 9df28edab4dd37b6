"""What the logs of a broker and of a worker tell of a worker's life."""

import json
import os
import re
import signal

import pytest

from tests.helpers.cluster import Cluster, children
from tests.helpers.waiting import until
from zstreamer import errors
from zstreamer.wire import protocol
from zstreamer.wire.transport import Connection, Options


@pytest.fixture
def log(capfd):
    """Wait for a line that holds these words; gives all that was printed."""
    lines = []

    def shows(*words):
        lines.extend(capfd.readouterr().err.splitlines())
        return any(all(word in line for word in words) for line in lines)

    def log(*words):
        until(lambda: shows(*words), 20)
        return lines

    return log


def test_a_broker_tells_of_workers_that_come_are_ready_fail_drain_and_leave(log):
    with Cluster(log_level="info") as cluster:
        worker = cluster.worker("pids", model="lively", num=2)
        log("worker came model=lively", "number=0")
        log("worker ready model=lively", "number=1")
        os.kill(children(worker)[0], signal.SIGKILL)
        log("worker failed model=lively", "was killed by SIGKILL")
        worker.terminate()
        log("worker draining model=lively", "number=0")
        log("worker left model=lively", "workers=0")
        lost = cluster.worker("pids", model="lost")
        log("worker ready model=lost")
        lost.kill()
        log("worker lost model=lost")
        broken = cluster.worker("Broken", model="broken", boot_attempts=1)
        lines = log("worker left model=broken")
        assert any(
            "worker failed model=broken" in x and "the weights are missing" in x for x in lines
        )
        assert any("worker gave up model=broken" in line for line in lines)
        broken.wait(10)
        cluster.broker.terminate()
        log("drained and stopped")


def test_a_worker_that_greets_anew_at_its_start_has_lost_and_left_nobody(log):
    with Cluster(log_level="info") as cluster:
        worker = cluster.worker("Costly", model="costly", log_level="info")
        log("model=costly ready")
        log("worker ready model=costly")
        worker.terminate()
        lines = log("zstreamer.worker.agent drained and stopped")
    assert sum("worker came" in line for line in lines) == 1
    assert not [line for line in lines if re.search(r"\blost\b", line)]


def test_a_worker_tells_in_time_how_many_failures_it_has_folded(log):
    with (
        Cluster() as cluster,
        cluster.serving("picky", batch_size=1, log_level="warning") as client,
    ):
        for _ in range(20):
            with pytest.raises(errors.PredictError):
                client.predict(["boom"])
        lines = log("predict failed type=ValueError items=19")
        assert sum("predict failed" in line for line in lines) == 2


def test_a_worker_that_ends_tells_of_the_failures_that_it_has_folded(log):
    with Cluster() as cluster:
        worker = cluster.worker("picky", model="picky", batch_size=1, log_level="warning")
        with cluster.client(model="picky") as client:
            client.wait_ready(30)
            for _ in range(3):
                with pytest.raises(errors.PredictError):
                    client.predict(["boom"])
        worker.terminate()
        log("predict failed type=ValueError items=2")


def test_in_json_every_line_of_every_process_is_an_object_that_tells_one_event(log):
    with Cluster(log_level="info", log_format="json", client_items=1) as cluster:
        worker = cluster.worker("picky", model="picky", log_level="info", log_format="json")
        with cluster.client(model="picky") as client:
            client.wait_ready(30)
            log('"worker ready"')  # it looks at workers some times a second
            with pytest.raises(errors.PredictError):
                client.predict(["boom"])
            with pytest.raises(errors.Overloaded):
                client.predict(["a", "b"])
        worker.terminate()
        log("worker left")
        cluster.broker.terminate()
        lines = [json.loads(line) for line in log("drained and stopped", "zstreamer.broker")]
    events = {line["event"]: line for line in lines}
    assert {"serving", "worker came", "worker ready", "worker draining", "worker left"} <= set(
        events
    )
    assert {"predict failed", "items refused", "draining", "drained and stopped"} <= set(events)
    assert events["worker came"]["model"] == "picky"
    assert events["predict failed"]["type"] == "ValueError"
    assert events["items refused"]["why"] == "reason client_full"
    assert {line["level"] for line in lines} == {"info", "warning"}


def test_a_broker_tells_whom_it_refused_and_how_often_without_a_line_for_each(log):
    with Cluster(log_level="info") as cluster:
        cluster.wait_up()
        for _ in range(5):
            connection = Connection(cluster.worker_address, Options())
            connection.socket.send_multipart(
                protocol.hello(protocol.Hello(protocol.Role.CLIENT, 1, {}))
            )
            assert connection.socket.poll(10_000)
            connection.close()
        cluster.broker.terminate()
        lines = [line for line in log("drained and stopped") if "worker refused" in line]
    assert re.search(r"worker refused times=1 last=\S+: this port is for workers", lines[0])
    assert sum(int(re.search(r"times=(\d+)", line)[1]) for line in lines) == 5
    assert len(lines) == 2


def test_at_debug_one_call_can_be_followed_through_client_broker_and_worker(log, caplog):
    caplog.set_level("DEBUG", "zstreamer.client")
    with Cluster(log_level="debug", log_format="json") as cluster:
        cluster.worker("echo", model="echo", log_level="debug", log_format="json")
        with cluster.client(model="echo") as client:
            client.wait_ready(30)
            client.predict(["one", "two"])
        (ended,) = [each.msg for each in caplog.records if "call ended" in each.getMessage()]
        tag = ended.fields["items"].split(",")[1]
        lines = log("items end", tag, "zstreamer.broker")
    told = [json.loads(line) for line in lines if tag in line]
    way = [(line["logger"].split(".")[1], line["event"]) for line in told]
    assert sorted(way) == [
        ("broker", "items came"),
        ("broker", "items end"),
        ("broker", "items leave"),
        ("worker", "batch begins"),
        ("worker", "items came"),
        ("worker", "items end"),
    ]
