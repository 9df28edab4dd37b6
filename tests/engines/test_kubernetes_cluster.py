"""The chart's pods as processes of this machine, under load: `scripts/engines kubernetes`."""

import random

import httpx
import pytest

from tests.engines.chart import CHART, helm, rendered
from tests.engines.load import Load
from tests.helpers.waiting import until
from tests.processes.test_network import why_not

pytest.importorskip("kubernetes_validate")
pytestmark = [pytest.mark.timeout(400), pytest.mark.root]


class OverHttp:
    """Callers as behind a Service: each request goes to any gateway that is ready."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._service = cluster.service("-gateway")
        limits = httpx.Limits(max_keepalive_connections=0)  # a connection each, as callers' own
        self._http = httpx.Client(timeout=60, limits=limits)

    def predict(self, items, timeout):
        pods = until(lambda: self._cluster.behind(self._service))
        pod = random.choice(pods)
        url = f"http://{pod.address}:8000/v1/models/default:predict"
        answer = self._http.post(url, json={"instances": items})
        assert answer.status_code == 200, f"{answer.status_code} {answer.text:.200}"
        return answer.json()["predictions"]


@pytest.fixture
def cluster():
    if reason := why_not():
        pytest.skip(reason)
    if helm() is None:
        pytest.skip("helm is not installed")
    from tests.engines.kubelet import LocalCluster

    with LocalCluster(rendered(CHART / "ci" / "local.yaml")) as cluster:
        cluster.wait_ready()
        yield cluster


def test_nobody_sees_an_error_while_pods_come_and_go(cluster):
    worker = cluster.name("Deployment", "-worker-default")
    gateway = cluster.name("Deployment", "-gateway")
    broker = cluster.name("StatefulSet", "-broker")
    events = {
        "nothing": lambda: None,
        "workers scaled from 2 to 3": lambda: cluster.scale(worker, 3),
        "workers scaled to 1": lambda: cluster.scale(worker, 1),
        "workers scaled to 2": lambda: cluster.scale(worker, 2),
        "rolling update of the workers": lambda: cluster.roll(worker),
        "rolling update of the gateways": lambda: cluster.roll(gateway),
        "rolling update of the brokers": lambda: cluster.roll(broker),
        "eviction of a broker": lambda: cluster.evict(broker),
        "eviction of a worker": lambda: cluster.evict(worker),
        "a node lost with a worker and a broker": lambda: cluster.lose(
            [cluster.of(worker)[0], cluster.of(broker)[0]]
        ),
    }
    with Load(OverHttp(cluster), callers=4) as load:
        for words, event in events.items():
            before = load.answered
            event()
            answered, worst = load.go_on(100)
            print(
                f"\n{words}: {answered - before} requests, worst {worst:.2f} s, "
                f"{len(load.errors)} errors"
            )
            assert load.errors == []
    print(f"\n{load}")
    assert {code for _, code in cluster.codes} == {0}, cluster.codes
