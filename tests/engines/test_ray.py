"""A cluster on a real Ray of several nodes: `scripts/engines ray`."""

import subprocess
import sys
import time

import pytest

from tests.engines.load import Load
from tests.helpers.cluster import ROOT, free_port

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


class Double:
    """Doubles numbers, in a few milliseconds a batch."""

    def predict(self, batch):
        time.sleep(0.005)
        return [2 * item for item in batch]


@pytest.fixture(scope="module")
def nodes():
    """Ray with a head and three more nodes of four CPUs each, as far as Ray is told."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    # The head places nothing of ours: an engine's head is not what is lost here.
    found = [cluster.add_node(num_cpus=6, resources={"ours": 6}) for _ in range(3)]
    ray.init(address=cluster.address, namespace="tests", log_to_driver=False)
    yield cluster, found
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(nodes):
    import zstreamer.ray

    cluster = zstreamer.ray.run(
        Double, num_workers=2, num_cpus=1, brokers=2, name="double", resources={"ours": 1}
    )
    cluster.wait(2)
    yield cluster
    cluster.shutdown()


def figures(words, load, calls):
    seconds = time.monotonic()
    answered, worst = load.go_on(calls)
    seconds = time.monotonic() - seconds
    print(
        f"\n{words}: {answered} calls answered in all, {len(load.errors)} errors, "
        f"{calls} of them in {seconds:.1f} s, the longest {worst:.2f} s"
    )
    assert load.errors == []


def test_workers_come_and_go_under_load(cluster):
    with cluster.client() as client, Load(client) as load:
        figures("two workers", load, 300)
        for workers in (1, 4, 1):
            cluster.scale(workers)
            cluster.wait(workers)
            figures(f"scaled to {workers}", load, 300)


def test_another_job_finds_it(cluster, nodes):
    program = (
        "import ray, zstreamer.ray\n"
        f"ray.init(address={nodes[0].address!r}, log_to_driver=False)\n"
        "with zstreamer.ray.get('double').client() as client:\n"
        "    print(client.predict([21], timeout=60))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "[42]" in done.stdout, done.stderr[-2000:]


def test_a_client_leaves_ray_alone_once_its_program_has_left(cluster, nodes):
    program = (
        "import time, ray, zstreamer.ray\n"
        f"ray.init(address={nodes[0].address!r}, log_to_driver=False)\n"
        "client = zstreamer.ray.get('double').client()\n"
        "print(client.predict([21], timeout=60))\n"
        "ray.shutdown()\n"
        "time.sleep(2)\n"  # its thread asks every half second
        "print(client.predict([4], timeout=60), ray.is_initialized())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "[42]\n[8] False\n" in done.stdout, (done.stdout, done.stderr[-2000:])


def test_ray_serve_has_its_http_interface(cluster):
    serve = pytest.importorskip("ray.serve")
    import httpx

    import zstreamer.ray

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(zstreamer.ray.serve_app("double"))
        url = f"http://127.0.0.1:{port}/v1/models/double:predict"
        answer = httpx.post(url, json={"instances": [21]}, timeout=60)
        assert answer.json() == {"predictions": [42]}
    finally:
        serve.shutdown()


def test_it_outlives_the_job_that_has_started_it(nodes):
    import zstreamer.ray

    program = (
        "import ray, zstreamer.ray\n"
        f"ray.init(address={nodes[0].address!r}, log_to_driver=False)\n"
        "double = 'tests.helpers.models:double'\n"
        "zstreamer.ray.run(double, name='left', resources={'ours': 1}).wait(1)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
    cluster = zstreamer.ray.get("left")
    with cluster.client() as client:
        assert client.predict([21], timeout=60) == [42]
    cluster.shutdown()
    with pytest.raises(ValueError, match="left"):
        zstreamer.ray.get("left")


def test_a_lost_node_shows_no_caller_an_error(cluster, nodes):
    everyone, ours = nodes
    cluster.scale(3)
    cluster.wait(3)
    with cluster.client() as client, Load(client) as load:
        figures("three workers on three nodes", load, 300)
        status = cluster.status()
        places = [status["node"], *(each["node"] for each in status["workers"].values())]
        hit = sorted(
            (node for node in ours if node.node_id in places),
            key=lambda node: places.index(node.node_id),
        )  # the controller's own node first: the worst to lose
        everyone.remove_node(hit[0], allow_graceful=False)
        figures("a node was killed", load, 600)
        cluster.wait(3, 180)
        figures("its actors are back elsewhere", load, 300)
        print(f"\n{load}")
