"""A client of two brokers: one drains, one has no worker for the model."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.helpers.cluster import Cluster, Gated
from tests.helpers.waiting import until
from zstreamer import Client
from zstreamer.errors import ModelNotFound, NoWorker

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def brokers():
    """Two brokers that know nothing of each other."""
    with Cluster(model_grace=0.5) as one, Cluster(model_grace=0.5) as other:
        one.wait_up()
        other.wait_up()
        yield one, other


def client_of(brokers, **settings):
    return Client([each.address for each in brokers], connect_timeout=20.0, **settings)


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_broker_that_drains_beside_another_shows_no_caller_an_error(brokers, idempotent):
    one, other = brokers
    both = (one.worker_address, other.worker_address)
    worker = one.worker("double", broker=both, batch_size=4)
    for each in brokers:
        each.wait_warm(1)
    stop = threading.Event()
    answered = [0]

    def calls(number):
        while not stop.is_set():
            assert client.predict([number, 1], idempotent=idempotent) == [2 * number, 2]
            answered[0] += 1

    with client_of(brokers, timeout=10.0) as client, ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(calls, i) for i in range(16)]
        for _ in range(2):
            for victim in brokers:
                goal = answered[0] + 100
                until(lambda goal=goal: answered[0] >= goal)
                victim.broker.terminate()
                assert victim.broker.wait(30) == 0
                victim.start_broker()
                victim.wait_warm(1)
        stop.set()
        for future in futures:
            future.result(30)
    assert worker.poll() is None


@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_a_model_at_one_of_two_brokers_is_found(brokers, wait):
    one, other = brokers
    other.worker("double", batch_size=4)
    other.wait_warm(1)
    time.sleep(wait)  # within the grace of an unknown model and after it
    with client_of(brokers) as client:
        for number in range(20):
            start = time.monotonic()
            assert client.predict([number], idempotent=False) == [2 * number]
            assert time.monotonic() - start < 5.0
        with pytest.raises(ModelNotFound):
            client_of(brokers, model="brat").predict([1], timeout=10)
    assert not one.model()


def test_a_client_is_ready_when_the_second_broker_has_a_worker(brokers):
    one, other = brokers
    with client_of(brokers) as client:
        one.worker("Broken", boot_attempts=1)
        until(lambda: one.model().get("trouble"))
        other.worker("double")
        client.wait_ready(60)
        assert client.predict([4]) == [8]


def test_items_that_wait_at_a_broker_whose_worker_has_gone_are_run_at_the_other(brokers, tmp_path):
    one, other = brokers
    kwargs = {"folder": str(tmp_path)}
    gate = Gated(tmp_path)
    worker = one.worker("Gate", batch_size=1, init_kwargs=kwargs)
    one.wait_warm(1)
    with client_of(brokers, timeout=100) as client:
        futures = [client.submit([i]) for i in range(6)]
        until(lambda: len(gate.begun) == 1 and one.open_items("default") == 6)
        worker.kill()
        until(lambda: not one.model()["workers"])
        gate.open()
        # By now they wait at the first broker again, since the second does not know the model.
        other.worker("Gate", batch_size=1, init_kwargs=kwargs)
        for i, future in enumerate(futures):
            assert future.result(60)[0][0] == i


def test_who_waits_for_a_worker_that_was_the_last_is_told_that_there_is_none(tmp_path):
    with Cluster() as cluster:
        gate = Gated(tmp_path)
        worker = cluster.worker("Gate", batch_size=1, init_kwargs={"folder": str(tmp_path)})
        cluster.wait_warm(1)
        client = cluster.client(timeout=4.0)
        futures = [client.submit([i]) for i in range(6)]
        until(lambda: len(gate.begun) == 1)
        worker.kill()
        for future in futures:
            with pytest.raises(NoWorker):
                future.result(30)
