"""Clusters that are ill in one way each, and what the doctor should say of it first."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import psutil
import requests

from tests.helpers.cluster import ROOT, Cluster, agents, free_port
from tests.helpers.waiting import until
from zstreamer import errors
from zstreamer.config import AgentConfig
from zstreamer.system.process import Process

MODELS = "tests.doctor.models"


@dataclass
class Case:
    """What to look at, and the code of the finding that is to come first."""

    address: str
    code: str
    look: dict = field(default_factory=dict)


@contextlib.contextmanager
def load(cluster, callers, *, model="default", items=1, timeout=20.0, payload=1):
    """So many threads call a model as long as the block."""
    end = threading.Event()
    client = cluster.client(model=model, timeout=timeout)

    def call():
        with contextlib.suppress(errors.Cancelled):  # at the end
            while not end.is_set():
                client.predict([payload] * items, return_exceptions=True)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(callers)]
    for each in threads:
        each.start()
    try:
        yield client
    finally:
        end.set()


@contextlib.contextmanager
def flood(cluster, rate, *, model="default", timeout=20.0):
    """So many items a second come, whatever becomes of them."""
    end = threading.Event()
    client = cluster.client(model=model, timeout=timeout)

    def send():
        while not end.wait(0.02):
            client.submit([1] * int(rate * 0.02), return_exceptions=True)

    threading.Thread(target=send, daemon=True).start()
    try:
        yield client
    finally:
        end.set()


@contextlib.contextmanager
def program(*arguments, **environment):
    """A program of its own that ends with the block."""
    env = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, env=env, **quiet)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def serving(target="steady", *, broker=None, **settings):
    with Cluster(**(broker or {})) as cluster:
        cluster.worker(f"{MODELS}:{target}", **settings)
        cluster.wait_up()
        until(lambda: cluster.model().get("ready"), 30)
        yield cluster


# Not to be reached


@contextlib.contextmanager
def name():
    yield Case("tcp://broker.invalid:7787", "name")


@contextlib.contextmanager
def absent():
    yield Case(f"tcp://127.0.0.1:{free_port()}", "absent")


@contextlib.contextmanager
def absent_socket():
    yield Case("ipc:///tmp/zstreamer-there-is-none", "absent")


@contextlib.contextmanager
def no_route():
    # Of a group: Linux lets no TCP leave for one, whatever the network is.
    yield Case("tcp://224.0.0.1:7787", "route")


@contextlib.contextmanager
def worker_port():
    with Cluster(tcp=True) as cluster:
        cluster.wait_up()
        yield Case(cluster.worker_address, "worker-port")


@contextlib.contextmanager
def http_port():
    port = free_port()
    with Cluster(http_port=port) as cluster:
        cluster.wait_up()
        yield Case(f"tcp://127.0.0.1:{port}", "http-port")


@contextlib.contextmanager
def stopped_broker():
    with Cluster(tcp=True) as cluster:
        cluster.wait_up()
        os.kill(cluster.broker.pid, signal.SIGSTOP)
        try:
            yield Case(cluster.address, "stuck")
        finally:
            os.kill(cluster.broker.pid, signal.SIGCONT)


@contextlib.contextmanager
def other_server():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield Case(f"tcp://127.0.0.1:{server.getsockname()[1]}", "no-broker")


@contextlib.contextmanager
def keys():
    import zmq

    _, secret = zmq.curve_keypair()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server:
        server.curve_server, server.curve_secretkey = True, secret
        port = server.bind_to_random_port("tcp://127.0.0.1")
        yield Case(f"tcp://127.0.0.1:{port}", "keys")


# Workers


@contextlib.contextmanager
def no_workers():
    with Cluster() as cluster:
        cluster.wait_up()
        yield Case(cluster.address, "no-workers")


@contextlib.contextmanager
def cannot_start():
    with Cluster() as cluster:
        cluster.worker(f"{MODELS}:Unborn", boot_attempts=1)
        cluster.wait_up()
        until(lambda: "weights" in str(cluster.model().get("trouble")), 30)
        yield Case(cluster.address, "cannot-start")


@contextlib.contextmanager
def gone_worker():
    with Cluster() as cluster:
        worker = cluster.worker(f"{MODELS}:steady")
        cluster.wait_up()
        until(lambda: cluster.model().get("ready"), 30)
        worker.terminate()
        until(lambda: not cluster.model()["workers"], 30)
        yield Case(cluster.address, "no-worker")


@contextlib.contextmanager
def unknown_model():
    with serving() as cluster:
        yield Case(cluster.address, "unknown-model", {"model": "bert"})


@contextlib.contextmanager
def hangs():
    with serving("hung", predict_timeout=60.0) as cluster:
        cluster.client().submit([1])
        until(lambda: cluster.model()["workers"][0]["batch_age"] > 3, 30)
        yield Case(cluster.address, "hangs")


@contextlib.contextmanager
def flaps():
    with serving("dying") as cluster, load(cluster, 8):
        until(lambda: cluster.model()["workers"][0]["failures"] > 2, 30)
        yield Case(cluster.address, "flaps", {"seconds": 4.0})


@contextlib.contextmanager
def fails_everything():
    with serving("failing") as cluster, load(cluster, 2):
        yield Case(cluster.address, "fails-everything")


@contextlib.contextmanager
def silent():
    with Cluster(heartbeat_timeout=60.0) as cluster:
        worker = cluster.worker(f"{MODELS}:steady", heartbeat_timeout=60.0)
        cluster.wait_up()
        until(lambda: cluster.model().get("ready"), 30)
        agent = agents(worker)[0]
        os.kill(agent, signal.SIGSTOP)
        try:
            until(lambda: _states(cluster) in (["stalled"], []), 30)
            yield Case(cluster.address, "silent")
        finally:
            os.kill(agent, signal.SIGCONT)


def _states(cluster):
    return [each["state"] for each in cluster.model()["workers"]]


@contextlib.contextmanager
def slow_worker():
    with Cluster() as cluster:
        cluster.worker(
            f"{MODELS}:Uneven", num=3, batch_size=4, init_kwargs={"folder": str(cluster.folder)}
        )
        cluster.wait_up()
        cluster.wait_warm(3)
        with load(cluster, 24):
            time.sleep(2)
            yield Case(cluster.address, "slow-worker")


@contextlib.contextmanager
def threads():
    with serving("Threads", batch_size=4) as cluster, load(cluster, 8):
        yield Case(cluster.address, "threads")


@contextlib.contextmanager
def drained():
    port = free_port()
    with serving(broker={"http_port": port}) as cluster:
        body = {"action": "drain", "name": "model default"}
        answer = requests.post(f"http://127.0.0.1:{port}/operator", json=body, timeout=5)
        assert answer.status_code == 200, answer.text
        yield Case(cluster.address, "drained")


# Load


@contextlib.contextmanager
def one_by_one():
    with serving() as cluster, load(cluster, 1):
        yield Case(cluster.address, "one-by-one")


@contextlib.contextmanager
def few_callers():
    with serving() as cluster, load(cluster, 6):
        yield Case(cluster.address, "few-callers")


@contextlib.contextmanager
def sync_gunicorn():
    port = free_port()
    with serving() as cluster:
        arguments = ["-w", "3", "-b", f"127.0.0.1:{port}", "tests.doctor.app:app"]
        with program("gunicorn", *arguments, ADDRESS=cluster.address):
            url = f"http://127.0.0.1:{port}/"
            until(lambda: _answers(url), 30)
            end = threading.Event()

            def ask():
                while not end.is_set():
                    _answers(url)

            for _ in range(8):
                threading.Thread(target=ask, daemon=True).start()
            time.sleep(1)
            try:
                yield Case(cluster.address, "sync-gunicorn")
            finally:
                end.set()


def _answers(url):
    with contextlib.suppress(requests.RequestException):
        return requests.get(url, timeout=10).ok


@contextlib.contextmanager
def cost():
    with serving("Costly", max_batch_cost=40.0) as cluster, load(cluster, 64):
        yield Case(cluster.address, "cost")


@contextlib.contextmanager
def latency_target():
    with serving("slow", latency_target=0.2) as cluster, load(cluster, 20, items=2):
        time.sleep(2)
        yield Case(cluster.address, "latency-target")


@contextlib.contextmanager
def window():
    with serving(broker={"window_items": 4}) as cluster, load(cluster, 64):
        yield Case(cluster.address, "window")


@contextlib.contextmanager
def window_bytes():
    broker = {"window_bytes": 300_000}
    with serving(broker=broker) as cluster, load(cluster, 64, payload=bytes(100_000)):
        yield Case(cluster.address, "window")


@contextlib.contextmanager
def queue_grows():
    with serving("slow", batch_size=4) as cluster, flood(cluster, 200, timeout=600.0):
        yield Case(cluster.address, "queue-grows")


@contextlib.contextmanager
def refused():
    with serving("slow", batch_size=4) as cluster, flood(cluster, 400, timeout=1.0):
        time.sleep(2)
        yield Case(cluster.address, "refused")


# Machines and brokers


@contextlib.contextmanager
def releases():
    with (
        serving() as cluster,
        program("tests.doctor.caller", cluster.address, "default", "64", "0.0.9"),
    ):
        until(lambda: cluster.model()["served"] > 100, 30)
        yield Case(cluster.address, "releases")


@contextlib.contextmanager
def clock():
    with Cluster() as cluster:
        config = AgentConfig(
            target=f"{MODELS}:steady", broker=(cluster.worker_address,), import_path=(str(ROOT),)
        )
        with Process("tests.doctor.odd_agent", config):
            cluster.wait_up()
            until(lambda: cluster.model().get("ready"), 30)
            yield Case(cluster.address, "clock")


@contextlib.contextmanager
def descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Cluster(tcp=True) as cluster:
        cluster.worker(f"{MODELS}:steady")
        cluster.wait_up()
        until(lambda: cluster.model().get("ready"), 30)
        resource.prlimit(cluster.broker.pid, resource.RLIMIT_NOFILE, (200, 200))
        port = int(cluster.address.rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(110)]
        try:
            time.sleep(0.5)
            yield Case(cluster.address, "descriptors")
        finally:
            for each in idle:
                each.close()


@contextlib.contextmanager
def memory():
    limit = 90 * 2**20
    with serving("hung", predict_timeout=60.0, broker={"max_memory": limit}) as cluster:
        client = cluster.client(timeout=60)
        broker = psutil.Process(cluster.broker.pid)

        def full():
            client.submit([bytes(2**20)], return_exceptions=True)
            return broker.memory_info().rss > 0.88 * limit

        until(full, 30)
        yield Case(cluster.address, "memory", {"seconds": 1.0})


@contextlib.contextmanager
def brokers_differ():
    with serving() as one, Cluster() as two:
        two.worker(f"{MODELS}:steady", model="other")
        two.wait_up()
        until(lambda: two.model("other").get("ready"), 30)
        yield Case(f"{one.address},{two.address}", "brokers-differ")


@contextlib.contextmanager
def broker_draining():
    port = free_port()
    with serving(broker={"http_port": port}) as cluster:
        body = {"action": "drain", "name": "broker"}
        assert requests.post(f"http://127.0.0.1:{port}/operator", json=body, timeout=5).ok
        yield Case(cluster.address, "broker-draining")


@contextlib.contextmanager
def nagle():
    port = free_port()
    server = (
        "from gevent import monkey; monkey.patch_all(); from gevent.pywsgi import WSGIServer;"
        f"import os; os.environ['ADDRESS'] = 'tcp://127.0.0.1:1';"
        "from tests.doctor.app import two_pieces;"
        f"WSGIServer(('127.0.0.1', {port}), two_pieces, log=None).serve_forever()"
    )
    with serving() as cluster:
        process = subprocess.Popen([sys.executable, "-c", server], cwd=ROOT)
        try:
            url = f"http://127.0.0.1:{port}/"
            until(lambda: _answers(url), 30)
            yield Case(cluster.address, "nagle", {"url": url})
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def healthy():
    """Two workers, more callers than a batch has places, and a little of everything."""
    with serving("steady", num=2) as cluster:
        cluster.wait_warm(2)
        with load(cluster, 80), load(cluster, 4, items=8):
            time.sleep(1)
            yield Case(cluster.address, "")


UNREACHABLE = (
    name, absent, absent_socket, no_route, worker_port, http_port, stopped_broker, other_server,
    keys,
)  # fmt: skip
RUNNING = (
    no_workers, cannot_start, gone_worker, unknown_model, hangs, flaps, fails_everything, silent,
    slow_worker, threads, drained, one_by_one, few_callers, sync_gunicorn, cost, latency_target,
    window, window_bytes, queue_grows, refused, releases, clock, descriptors, memory,
    brokers_differ, broker_draining, nagle,
)  # fmt: skip
ALL = {each.__name__: each for each in (*UNREACHABLE, *RUNNING)}
