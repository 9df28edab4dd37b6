"""The directory of models on real brokers, in threads, greenlets, coroutines and forks."""

import asyncio
import os
import threading
import time

import pytest

from tests.helpers.cluster import Cluster
from tests.helpers.program import succeed
from tests.helpers.waiting import until
from zstreamer.errors import BrokerUnreachable
from zstreamer.system import native
from zstreamer.web import directory as module
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.directory import Directory

IDLE_HUB = """
import sys, time
from gevent import get_hub
from zstreamer.web import directory
get_hub().loop  # in a program that is not patched, and where nothing has run it lately
directory.LATE = 0.0
time.sleep(1.5)
assert directory.Directory(sys.argv[1]).get()["models"]
print("fine")
"""
ABSENT = "tcp://127.0.0.1:9"


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        cluster.worker("double")
        cluster.wait_up()
        cluster.wait_warm(1)
        yield cluster


@pytest.mark.gevent
def test_it_says_which_models_there_are(cluster):
    directory = Directory(cluster.address)
    snapshot = directory.get()
    assert snapshots.is_ready(snapshots.named(snapshot, "default"))
    assert directory.get() is snapshot, "what is fresh is not asked for again"


def test_a_hub_that_has_not_run_for_a_while_waits_as_long_as_any(cluster, tmp_path):
    succeed(tmp_path, IDLE_HUB, cluster.address)


@pytest.mark.gevent
def test_many_who_ask_at_once_share_one_question(cluster, monkeypatch):
    asked = []
    fetch = module.status.fetch
    monkeypatch.setattr(module.status, "fetch", lambda *a: asked.append(a) or fetch(*a))
    directory = Directory(cluster.address)
    found = []
    threads = [threading.Thread(target=lambda: found.append(directory.get())) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 50
    assert len({id(each) for each in found}) <= 2
    assert len(asked) <= 2


@pytest.mark.gevent
def test_others_run_while_one_waits(cluster):
    directory = Directory(ABSENT, timeout=0.5)
    ticks = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(1)
            time.sleep(0.01)

    thread = threading.Thread(target=tick)
    thread.start()
    with pytest.raises(BrokerUnreachable, match=ABSENT):
        directory.get()
    done.set()
    thread.join()
    assert len(ticks) > 10


def test_coroutines_await_it_and_the_loop_goes_on(cluster):
    async def main():
        directory = Directory(cluster.address)
        first = await asyncio.gather(*(directory.aget() for _ in range(20)))
        assert await directory.aget() is first[0]
        absent = Directory(ABSENT, timeout=0.5)
        waiting = asyncio.ensure_future(absent.aget())
        given_up = asyncio.ensure_future(absent.aget())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        given_up.cancel()
        with pytest.raises(BrokerUnreachable):
            await waiting
        return first

    assert all(snapshots.served(each) for each in asyncio.run(main()))


def test_a_loop_that_is_closed_before_the_answer_hurts_nobody():
    directory = Directory(ABSENT, timeout=0.2)

    async def leave():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(directory.aget(), 0.01)

    asyncio.run(leave())
    with pytest.raises(BrokerUnreachable):
        directory.get()


@pytest.mark.gevent
def test_what_is_not_quite_fresh_is_given_while_a_new_one_is_fetched(cluster, monkeypatch):
    directory = Directory(cluster.address)
    first = directory.get()
    monkeypatch.setattr(module, "FRESH", 0.0)
    assert directory.get() is first
    until(lambda: directory.get() is not first)


@pytest.mark.gevent
def test_a_broker_that_has_gone_is_told_and_one_that_comes_back_is_found():
    with Cluster() as cluster:
        cluster.wait_up()
        directory = Directory(cluster.address, timeout=0.3)
        assert directory.get()
        cluster.broker.close()

        def gone():
            try:
                directory.get()
            except BrokerUnreachable:
                return True
            return False

        until(gone)
        cluster.start_broker()
        until(lambda: not gone())


def test_several_brokers_are_one_and_a_dead_one_delays_nobody_twice(cluster, monkeypatch):
    with Cluster() as second:
        second.worker("echo", model="other")
        second.wait_up()
        second.wait_warm(1, "other")
        directory = Directory([cluster.address, ABSENT, second.address], timeout=1.5)
        assert set(snapshots.served(directory.get())) == {"default", "other"}
        monkeypatch.setattr(module, "STALE", 0.0)
        monkeypatch.setattr(module, "FRESH", 0.0)
        begun = time.monotonic()
        directory.get()
        assert time.monotonic() - begun < 1.5


def test_what_two_brokers_say_of_one_model_is_added_up():
    worker = {"host": "a", "pid": 1, "number": 0}
    one = {"ready": False, "queued": 3, "workers": [worker], "inputs": None}
    two = {"ready": True, "queued": 4, "workers": [worker, {**worker, "pid": 2}], "inputs": [1]}
    found = snapshots.merged([{"models": {"m": one, "n": one}}, {"models": {"m": two}}])
    merged = snapshots.served(found)["m"]
    assert (merged["ready"], merged["queued"], merged["inputs"]) == (True, 7, [1])
    assert [each["pid"] for each in merged["workers"]] == [1, 2]
    assert snapshots.served(found)["n"] == one


@pytest.mark.gevent
def test_a_forked_child_asks_for_itself(cluster):
    directory = Directory(cluster.address)
    first = directory.get()
    directory._lock.acquire()  # as if another thread had it
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if directory.get() is not first else 2
        finally:
            os._exit(code)
    directory._lock.release()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert directory.get() is first


@pytest.mark.gevent
def test_no_thread_and_no_lock_are_left_behind(cluster):
    directory = Directory(cluster.address)
    directory.get()
    until(lambda: not directory._fetching)
    assert directory._waiting == []
    assert directory._lock.acquire(timeout=1)
    directory._lock.release()


def test_a_thread_that_cannot_be_started_is_an_error_and_no_silence(monkeypatch):
    def fail(_):
        raise RuntimeError("can't start new thread")

    directory = Directory(ABSENT)
    monkeypatch.setattr(native, "start_thread", fail)
    with pytest.raises(BrokerUnreachable, match="can't start new thread"):
        directory.get()


@pytest.mark.parametrize("address", ["", "localhost:7787", []])
def test_an_address_that_is_none_is_refused_at_once(address):
    with pytest.raises(ValueError, match="address"):
        Directory(address)
