"""The chart's pods as processes of this machine, under load: `scripts/engines kubernetes`."""

import contextlib
import random
import urllib.request

import httpx
import pytest

from tests.engines.chart import CHART, helm, rendered
from tests.engines.load import Load
from tests.helpers.scrape import value
from tests.helpers.waiting import until
from tests.processes.test_network import why_not

LOCAL = CHART / "ci" / "local.yaml"

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


@pytest.fixture(scope="module")
def start():
    """Start a cluster of the local values; arguments are NAME=VALUE beyond them."""
    if reason := why_not():
        pytest.skip(reason)
    if helm() is None:
        pytest.skip("helm is not installed")
    from tests.engines.kubelet import LocalCluster

    @contextlib.contextmanager
    def start(*settings):
        with LocalCluster(rendered(LOCAL, *settings)) as cluster:
            cluster.wait_ready()
            yield cluster

    return start


@pytest.fixture
def cluster(start):
    with start() as cluster:
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


VERSIONS = [f"models.default.versions.{version}.replicas=1" for version in (1, 2)]


def test_a_version_replaces_another_by_changed_routes_and_nobody_sees_an_error(start):
    def answered(version):
        """How many items a version has answered, at all brokers."""
        return sum(
            value(text, "zstreamer_items_total", model=f"default@{version}", outcome="ok")
            for text in map(metrics, cluster.of(cluster.name("StatefulSet", "-broker")))
        )

    def more_of(version, load):
        """How many it answers of the next calls."""
        before = answered(version)
        load.go_on(20)
        return answered(version) - before

    def shift(**weights):
        given = [f"routes.default.weights.{name[1:]}={n}" for name, n in weights.items()]
        cluster.configure(rendered(LOCAL, *VERSIONS, *given))

    with (
        start(*VERSIONS, "routes.default.weights.1=1") as cluster,
        Load(OverHttp(cluster), callers=4) as load,
    ):
        load.go_on(50)
        assert answered(2) == 0, "it has no weight"
        shift(v1=50, v2=50)
        until(lambda: answered(2) > 20, 30)
        shift(v2=1)
        until(lambda: not more_of(1, load), 60)
        cluster.scale(cluster.name("Deployment", "-default--1"), 0)
        answers, worst = load.go_on(50)
        print(f"\n{answers} requests, worst {worst:.2f} s, {len(load.errors)} errors")
    assert load.errors == []
    assert {code for _, code in cluster.codes} == {0}, cluster.codes


def metrics(pod):
    with urllib.request.urlopen(f"http://{pod.address}:7789/metrics", timeout=10) as response:
        return response.read().decode()
