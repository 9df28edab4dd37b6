"""/readyz of broker, worker and gateway: red soon after nobody answers, green soon again."""

import os
import signal
import time
import urllib.error
import urllib.request

import pytest

from tests.helpers.cluster import Cluster, agents, children, free_port
from tests.helpers.waiting import until
from zstreamer.config import GatewayConfig
from zstreamer.system.process import Process

SOON = 2.0 + 3.0
"""Seconds that are promised, and what a machine that has other things to do may add."""


@pytest.fixture(scope="module")
def ports():
    return {"broker": free_port(), "worker": free_port(), "gateway": free_port()}


@pytest.fixture(scope="module")
def cluster(ports):
    with Cluster(http_port=ports["broker"]) as cluster:
        config = GatewayConfig(
            broker=(cluster.address,), port=ports["gateway"], model="nap", log_level="error"
        )
        with Process("zstreamer.web.gateway.parent", config):
            yield cluster


def status(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def within(seconds, ports, wanted):
    """Wait until all probes have this status; fails where one takes longer than so many seconds."""
    start = time.monotonic()
    took = {}

    def all_there():
        for name, port in ports.items():
            if name not in took and status(port) == wanted:
                took[name] = time.monotonic() - start
        return len(took) == len(ports)

    until(all_there, 20)
    assert max(took.values()) < seconds, took


@pytest.fixture
def awake(tmp_path):
    """The file with which the model starts."""
    return tmp_path / "awake"


@pytest.fixture
def worker(cluster, ports, awake):
    """The only worker, whose model has not started; it ends with the test."""
    settings = {"metrics_port": ports["worker"], "predict_timeout": 60, "drain_grace": 0.1}
    kwargs = {"folder": str(awake.parent)}
    with cluster.worker("Dormant", model="nap", init_kwargs=kwargs, **settings) as worker:
        yield worker


def others(ports):
    """The probes but the worker's own, for when that is stopped or gone."""
    return {name: ports[name] for name in ("broker", "gateway")}


def test_all_probes_are_red_soon_after_the_last_warm_workers_end_and_green_soon_again(
    cluster, ports, worker, awake
):
    within(20, ports, 503)
    awake.touch()
    within(SOON, ports, 200)

    awake.unlink()
    os.kill(children(worker)[0], signal.SIGKILL)
    within(SOON, ports, 503)
    awake.touch()
    within(SOON, ports, 200)

    worker.kill()
    within(SOON, others(ports), 503)


def test_all_probes_are_red_soon_after_the_last_warm_worker_hangs_and_green_soon_again(
    cluster, ports, worker, awake
):
    awake.touch()
    with cluster.client(model="nap") as client:
        client.wait_ready(30)
        for _ in range(3):
            client.predict([0.01])

        slow = client.submit([4.0])  # as a batch that hangs, for all that anybody knows
        until(lambda: cluster.at_workers("nap"))
        within(SOON, ports, 503)
        slow.result()
        within(SOON, ports, 200)

    (agent,) = agents(worker)
    os.kill(agent, signal.SIGSTOP)
    try:
        within(SOON, others(ports), 503)
    finally:
        os.kill(agent, signal.SIGCONT)
    within(SOON, ports, 200)


def test_a_worker_says_why_it_is_not_ready(cluster, ports):
    port = free_port()
    cluster.worker("Broken", model="broken", metrics_port=port, boot_attempts=50)

    seen = []

    def told():
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5)
        except urllib.error.HTTPError as error:
            seen.append(error.read().decode())
        except OSError as error:
            seen.append(str(error))
        else:
            seen.append("ready")
        return "the weights are missing" in seen[-1]

    until(told, 20, said=lambda: set(seen))
    assert told(), "the reason stays until the next attempt has ended"
