"""Broker, workers and clients that are stopped, killed, left idle, or only imported."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.bench import usage
from tests.helpers.cluster import Cluster, Gated, agents, children
from tests.helpers.program import running
from tests.helpers.waiting import all_gone, descendants, until
from zstreamer import errors
from zstreamer.system.exitcodes import ExitCode


@pytest.fixture
def cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def gated(cluster, tmp_path):
    """A supervisor of two workers of the model `Gate`, and the gate's other side."""
    kwargs = {"folder": str(tmp_path)}
    supervisor = cluster.worker("Gate", num=2, batch_size=4, init_kwargs=kwargs)
    cluster.wait_warm(2)
    gate = Gated(tmp_path)
    yield supervisor, gate
    gate.open()


class Callers:
    """Threads that call without pause; what goes wrong is kept."""

    def __init__(self, client, number=4):
        self._client = client
        self._ending = threading.Event()
        self.answered = 0
        self.problems = []
        self._threads = [threading.Thread(target=self._call, args=(i,)) for i in range(number)]

    def _call(self, number):
        i = number
        while not self._ending.is_set():
            i += 10
            try:
                if self._client.predict([i, i + 1]) != [2 * i, 2 * i + 2]:
                    self.problems.append(f"wrong answer for {i}")
            except Exception as error:
                self.problems.append(repr(error))
            self.answered += 1

    def more(self, calls=100):
        """Wait for so many more calls."""
        goal = self.answered + calls
        until(lambda: self.answered >= goal)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        for thread in self._threads:
            thread.join(30)


# Stopping


def test_sigterm_drains_a_worker_and_no_caller_sees_an_error(cluster):
    stays, goes = (cluster.worker("double", batch_size=4) for _ in range(2))
    cluster.wait_warm(2)
    with Callers(cluster.client()) as callers:
        callers.more()
        goes.terminate()
        assert goes.wait(15) == ExitCode.OK
        callers.more()
    assert callers.problems == []
    assert stays.poll() is None
    assert len(cluster.model()["workers"]) == 1


def test_sigterm_lets_the_running_batch_finish_and_moves_what_had_not_begun(cluster, tmp_path):
    kwargs = {"folder": str(tmp_path)}
    gate = Gated(tmp_path)
    worker = cluster.worker("Gate", batch_size=1, init_kwargs=kwargs)
    cluster.wait_warm(1)
    client = cluster.client(timeout=1000)
    futures = [client.submit([name]) for name in ("a", "b", "c", "d")]
    gate.wait_begun("a")
    model = children(worker)
    worker.terminate()
    until(lambda: cluster.model()["workers"][0]["state"] == "draining")
    gate.open()
    assert futures[0].result(20) == [["a", model[0]]]
    assert worker.wait(15) == ExitCode.OK
    assert all_gone(model)
    cluster.worker("Gate", batch_size=1, init_kwargs=kwargs)
    for name, future in zip("bcd", futures[1:], strict=True):
        assert future.result(20)[0][0] == name
    assert sorted(gate.begun) == ["a", "b", "c", "d"]


def test_a_second_sigterm_ends_a_worker_at_once(cluster, gated):
    supervisor, gate = gated
    cluster.client().submit(["a"])
    gate.wait_begun("a")
    started = descendants(supervisor.pid)
    supervisor.terminate()
    until(lambda: {w["state"] for w in cluster.model()["workers"]} == {"draining"})
    supervisor.terminate()
    assert supervisor.wait(10) == ExitCode.NOT_DRAINED
    assert all_gone(started)


@pytest.mark.parametrize("end", ["drain", "owner gone", "agent killed"])
def test_a_model_that_holds_the_gil_stays_behind_nobody(cluster, end):
    if end == "agent killed" and sys.platform != "linux":
        pytest.skip("only Linux ends a process with its parent")
    supervisor = cluster.worker("deaf", drain_grace=0.3)
    cluster.wait_warm(1)
    cluster.client(timeout=60).submit([1])
    until(lambda: cluster.model()["workers"][0]["running"])
    agent, model = agents(supervisor), children(supervisor)
    if end == "drain":
        supervisor.terminate()
        assert supervisor.wait(10) == ExitCode.NOT_DRAINED
    elif end == "owner gone":
        supervisor.close()
    else:
        os.kill(agent[0], signal.SIGKILL)
    assert all_gone(model)


def test_sigterm_drains_a_broker_which_answers_what_it_has_and_refuses_the_rest(cluster, gated):
    _, gate = gated
    client = cluster.client()
    running, other = client.submit(["a"]), cluster.client()
    other.wait_ready(5)
    gate.wait_begun("a")
    cluster.broker.terminate()
    until(lambda: cluster.status()["broker"]["draining"])
    with pytest.raises(errors.Overloaded, match="shutting down") as caught:
        other.predict(["b"])
    assert caught.value.retry_after > 0
    gate.open()
    assert running.result(20)[0][0] == "a"
    assert cluster.broker.wait(15) == ExitCode.OK


def test_an_idle_broker_stops_at_once(cluster):
    cluster.wait_up()
    start = time.monotonic()
    cluster.broker.terminate()
    assert cluster.broker.wait(15) == ExitCode.OK
    assert time.monotonic() - start < 10


# Killing


def test_items_of_a_model_process_that_is_killed_are_run_by_the_other_worker(cluster, gated):
    supervisor, gate = gated
    client = cluster.client(timeout=40)
    future = client.submit([f"i{n}" for n in range(8)])  # in one message, so in two full batches
    until(lambda: len(gate.begun) == 8)
    victim, survivor = children(supervisor)
    os.kill(victim, signal.SIGKILL)
    gate.open()
    answers = future.result(40)
    assert [item for item, _ in answers] == [f"i{n}" for n in range(8)]
    assert victim not in {pid for _, pid in answers}
    assert survivor in {pid for _, pid in answers}
    cluster.wait_warm(2)
    assert victim not in children(supervisor)


def test_items_of_the_only_model_process_run_again_when_it_is_back(cluster, tmp_path):
    gate = Gated(tmp_path)
    worker = cluster.worker("Gate", batch_size=4, init_kwargs={"folder": str(tmp_path)})
    futures = [cluster.client(timeout=40).submit([name]) for name in ("a", "b", "c", "d", "e")]
    until(lambda: gate.begun)  # which four of them came first is open
    [victim] = children(worker)
    os.kill(victim, signal.SIGKILL)
    gate.open()
    answers = [future.result(40)[0] for future in futures]
    assert [item for item, _ in answers] == ["a", "b", "c", "d", "e"]
    assert victim not in {pid for _, pid in answers}


def test_items_of_an_agent_that_is_killed_are_run_elsewhere_and_it_is_started_again(cluster, gated):
    supervisor, gate = gated
    client = cluster.client(timeout=40)
    future = client.submit([f"i{n}" for n in range(8)])  # in one message, so in two full batches
    until(lambda: len(gate.begun) == 8)
    victim = agents(supervisor)[0]
    orphans = descendants(victim)
    os.kill(victim, signal.SIGKILL)
    assert all_gone(orphans, 3.0)
    gate.open()
    answers = future.result(40)
    assert [item for item, _ in answers] == [f"i{n}" for n in range(8)]
    assert not set(orphans) & {pid for _, pid in answers}
    cluster.wait_warm(2)


def test_what_may_run_only_once_fails_with_worker_lost_and_is_not_run_again(cluster, gated):
    supervisor, gate = gated
    future = cluster.client(timeout=40).submit(["once"], idempotent=False)
    gate.wait_begun("once")
    for pid in children(supervisor):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(errors.WorkerLost, match="only once"):
        future.result(20)
    gate.open()
    cluster.wait_warm(2)
    assert gate.begun == ["once"]


def test_an_item_that_kills_every_worker_fails_alone(cluster):
    cluster.worker("deadly", num=2, batch_size=8)
    client = cluster.client(timeout=45)
    client.wait_ready(30)
    futures = [client.submit(["die" if i == 5 else i]) for i in range(16)]
    for i, future in enumerate(futures):
        if i == 5:
            with pytest.raises(errors.WorkerLost, match="died 2 times"):
                future.result(45)
        else:
            assert future.result(45) == [i]


def test_killing_workers_again_and_again_shows_no_caller_an_error(cluster):
    supervisor = cluster.worker("double", num=2, batch_size=8)
    cluster.wait_warm(2)
    with Callers(cluster.client(timeout=40)) as callers:
        for turn in range(6):
            callers.more(30)
            victims = children(supervisor) if turn % 2 else agents(supervisor)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victims[turn // 2 % len(victims)], signal.SIGKILL)
        callers.more(30)
    assert callers.problems == []


@pytest.mark.parametrize("tcp", [False, True], ids=["ipc", "tcp"])
def test_calls_survive_a_broker_that_is_killed_and_started_again(tcp):
    with Cluster(tcp=tcp) as cluster:
        cluster.worker("double", num=2, batch_size=4)
        client = cluster.client(timeout=40, connect_timeout=20)
        client.wait_ready(30)
        with Callers(client) as callers:
            for _ in range(2):
                callers.more()
                cluster.broker.kill()
                cluster.broker.wait(5)
                cluster.start_broker()
            callers.more()
        assert callers.problems == []


def test_what_may_run_only_once_is_not_sent_again_to_a_broker_that_was_restarted(cluster, gated):
    _, gate = gated
    client = cluster.client(timeout=40)
    future = client.submit(["once"], idempotent=False)
    gate.wait_begun("once")
    cluster.broker.kill()
    cluster.broker.wait(5)
    cluster.start_broker()
    with pytest.raises(errors.WorkerLost, match="restarted"):
        future.result(20)
    gate.open()
    cluster.wait_warm(2)
    assert client.predict(["next"])[0][0] == "next"
    assert gate.begun == ["once", "next"]


def test_a_client_and_workers_that_stood_still_go_on(cluster, tmp_path):
    worker = cluster.worker("double")
    client = cluster.client(timeout=40)
    assert client.predict([1]) == [2]
    [agent] = agents(worker)
    os.kill(agent, signal.SIGSTOP)
    try:
        future = client.submit([2])
        # Longer than the heartbeat timeout, so that the broker has given it up.
        until(lambda: not cluster.model()["workers"], 10)
    finally:
        os.kill(agent, signal.SIGCONT)
    assert future.result(30) == [4]


# Idle, and import


IDLE_CLIENT = """
import sys, time
from zstreamer import Client
client = Client(sys.argv[1])
assert client.predict([1]) == [2]
print("ready", flush=True)
time.sleep(60)
"""


def test_idle_processes_use_less_than_one_percent_of_a_core(cluster, tmp_path):
    worker = cluster.worker("double")
    cluster.client().wait_ready(30)
    with running(tmp_path, IDLE_CLIENT, cluster.address) as program:
        program.stdout.readline()
        watched = {
            "broker": cluster.broker.pid,
            "supervisor": worker.pid,
            "agent": agents(worker)[0],
            "model": children(worker)[0],
            "client": program.pid,
        }

        def cpu():
            return {name: usage.all_cpu(pid) for name, pid in watched.items()}

        before, seconds = cpu(), 2.5
        time.sleep(seconds)
        used = {name: round(after - before[name], 3) for name, after in cpu().items()}
    assert all(each <= 0.01 * seconds for each in used.values()), used


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has scheduling policies")
def test_an_agent_never_takes_a_core_from_the_model(cluster):
    supervisor = cluster.worker("echo")
    cluster.wait_warm(1)
    assert [os.sched_getscheduler(pid) for pid in agents(supervisor)] == [os.SCHED_BATCH]
    assert [os.sched_getscheduler(pid) for pid in children(supervisor)] == [os.SCHED_OTHER]


def test_importing_it_costs_little_and_brings_nothing_heavy_along():
    # Processor time, and the least of each: a busy machine only adds.
    report = "; import sys, time; print(time.process_time() - start, *sys.modules)"
    times = {"zstreamer": [], "zmq, msgpack": []}
    heavy = {"torch", "transformers", "flask", "numpy", "gevent", "fastapi", "rich_click"}
    for _ in range(7):
        for modules, found in times.items():
            code = f"import time; start = time.process_time(); import {modules}{report}"
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
            seconds, *names = done.stdout.split()
            found.append(float(seconds))
            assert not heavy & set(names)
    more = min(times["zstreamer"]) - min(times["zmq, msgpack"])
    assert more < 0.15


def test_agents_and_brokers_never_import_what_models_do():
    code = "import sys, {}; print(*{{'torch', 'gevent', 'numpy', 'flask'}} & set(sys.modules))"
    for module in ("zstreamer.worker.agent", "zstreamer.worker.supervisor", "broker.server"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == []


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into Linux's /proc")
def test_only_the_model_process_loads_what_the_model_and_its_data_need(cluster):
    worker = cluster.worker("echo")
    array = np.zeros(3)
    assert (cluster.client().predict([array], timeout=30)[0] == array).all()

    def has_numpy(pid):
        return "numpy" in Path(f"/proc/{pid}/maps").read_text()

    assert all(map(has_numpy, children(worker)))
    assert not any(map(has_numpy, [cluster.broker.pid, worker.pid, *agents(worker)]))
