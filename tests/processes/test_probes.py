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


def test_probes_are_red_soon_after_the_last_warm_workers_end_or_hang_and_green_soon_again(
    cluster, ports
):
    both = {name: ports[name] for name in ("broker", "gateway")}
    within(20, both, 503)
    worker = cluster.worker("nap", model="nap", metrics_port=ports["worker"], predict_timeout=60)
    with cluster.client(model="nap") as client:
        client.wait_ready(30)
        within(SOON, ports, 200)
        for _ in range(3):
            client.predict([0.01])

        slow = client.submit([3.0])  # as a batch that hangs, for all that anybody knows
        until(lambda: cluster.at_workers("nap"))
        within(SOON, ports, 503)
        slow.result()
        within(SOON, ports, 200)

        (agent,) = agents(worker)
        os.kill(agent, signal.SIGSTOP)
        try:
            within(SOON, both, 503)
        finally:
            os.kill(agent, signal.SIGCONT)
        within(SOON, ports, 200)

        os.kill(children(worker)[0], signal.SIGKILL)
        until(lambda: cluster.model("nap")["workers"][0]["state"] != "warm", 10)
        client.wait_ready(30)
        within(SOON, ports, 200)
    worker.kill()
    within(SOON, both, 503)


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
