"""What the logs of a broker and of a worker tell of a worker's life."""

import os
import re
import signal

import pytest

from tests.helpers.cluster import Cluster, children
from tests.helpers.waiting import until
from zstreamer import errors


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
