"""The client on a real cluster, in threads, greenlets and asyncio."""

import asyncio
import datetime as dt
import threading
import time
from concurrent import futures
from concurrent.futures import CancelledError

import numpy as np
import pytest

from tests.helpers.cluster import Cluster
from tests.helpers.program import running, succeed
from tests.helpers.waiting import until
from zstreamer import Client, aio, errors

THOUSAND = 1000


# Right order, right owners


@pytest.mark.gevent
def test_ten_thousand_items_in_one_call_come_back_in_order(client_of):
    assert client_of("double").predict(list(range(10_000))) == [2 * i for i in range(10_000)]


@pytest.mark.gevent
def test_a_call_larger_than_every_window_and_queue_is_answered():
    with Cluster(window_items=50, client_items=60, max_items=70) as cluster:
        cluster.worker("double", batch_size=8)
        client = cluster.client()
        assert client.predict(list(range(2000))) == [2 * i for i in range(2000)]


@pytest.mark.gevent
def test_an_empty_call_is_answered_at_once_with_nothing(client_of):
    client = client_of("double")
    assert client.predict([]) == []
    assert client.submit([]).result(10) == []


def test_an_empty_call_needs_no_broker():
    with Client("tcp://127.0.0.1:9") as client:
        assert client.predict([], timeout=1) == []


@pytest.mark.gevent
def test_a_thousand_concurrent_calls_from_threads_each_get_their_own(client_of):
    client = client_of("double")
    answers = {}
    start = threading.Barrier(50)

    def call(first):
        start.wait()
        for i in range(first, first + THOUSAND // 50):
            answers[i] = client.predict([i])

    threads = [
        threading.Thread(target=call, args=(first,)) for first in range(0, THOUSAND, THOUSAND // 50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {i: [2 * i] for i in range(THOUSAND)}


@pytest.mark.gevent
def test_a_thousand_threads_at_once_each_get_their_own(client_of):
    client = client_of("double")
    answers = {}

    def call(i):
        answers[i] = client.predict([i])

    threads = [threading.Thread(target=call, args=(i,)) for i in range(THOUSAND)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {i: [2 * i] for i in range(THOUSAND)}


@pytest.mark.gevent
def test_a_thousand_futures_each_get_their_own(client_of):
    client = client_of("double")
    futures = [client.submit([i, -i]) for i in range(THOUSAND)]
    assert [f.result(20) for f in futures] == [[2 * i, -2 * i] for i in range(THOUSAND)]


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent, sys, threading, time
from zstreamer import Client

client = Client(sys.argv[1], model="double")
gaps, before = [], time.monotonic()
def tick():
    global before
    while True:
        gevent.sleep(0.005)
        now = time.monotonic()
        gaps.append(now - before)
        before = now
ticker = gevent.spawn(tick)
jobs = [gevent.spawn(client.predict, [i]) for i in range(1000)]
gevent.joinall(jobs)
assert [job.value for job in jobs] == [[2 * i] for i in range(1000)]
gevent.sleep(0.01)
assert gaps and max(gaps) < 2, "the hub stood still"
big = gevent.spawn(client.predict, list(range(5000)))
assert client.predict([7]) == [14]
assert big.get() == [2 * i for i in range(5000)]
pool = gevent.get_hub().threadpool
assert pool.apply(client.predict, ([3],)) == [6]
assert len(threading.enumerate()) < 5
client.close()
print("fine")
"""


def test_a_thousand_greenlets_each_get_their_own(shared, tmp_path):
    succeed(tmp_path, GREENLETS, shared.address)


@pytest.mark.asyncio
async def test_a_thousand_coroutines_each_get_their_own(shared):
    async with aio.Client(shared.address, model="double") as client:
        answers = await asyncio.gather(*(client.predict([i]) for i in range(THOUSAND)))
    assert answers == [[2 * i] for i in range(THOUSAND)]


@pytest.mark.asyncio
async def test_ten_thousand_items_in_one_awaited_call_come_back_in_order(shared):
    async with aio.Client(shared.address, model="double") as client:
        assert await client.predict(list(range(10_000))) == [2 * i for i in range(10_000)]
        assert await client.predict([]) == []
        await client.wait_ready(10)


@pytest.mark.asyncio
async def test_futures_of_threads_can_be_awaited(client_of):
    client = client_of("double")
    futures = [asyncio.wrap_future(client.submit([i])) for i in range(100)]
    assert await asyncio.gather(*futures) == [[2 * i] for i in range(100)]


# What can be sent


def same(left, right):
    """Equal in type, dtype, shape and every value."""
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and (left == right).all()
    return type(left) is type(right) and left == right


@pytest.mark.gevent
@pytest.mark.parametrize("size", [10, 10_000, 10_000_000])
def test_arrays_of_any_size_come_back_equal(client_of, size):
    array = np.random.default_rng(size).random(size // 4, dtype=np.float32)
    [answer] = client_of("echo").predict([array])
    assert same(array, answer)


@pytest.mark.slow
def test_an_array_of_200_mb_comes_back_equal_where_the_limits_are_raised():
    limit = 300 * 2**20
    array = np.random.default_rng(1).random(50_000_000, dtype=np.float32)
    with Cluster(max_payload=limit, client_bytes=2 * limit, unread_bytes=2 * limit) as cluster:
        cluster.worker("echo", max_payload=limit)
        client = cluster.client(timeout=50)
        small = [client.submit([i]) for i in range(10)]
        [answer] = client.predict([array])
        assert [each.result(1) for each in small] == [[i] for i in range(10)]
    assert same(array, answer)


@pytest.mark.gevent
def test_many_large_arrays_at_once_come_back_to_their_owners(client_of):
    client = client_of("echo")
    arrays = [np.full((700, 1000), i, np.float32) for i in range(24)]
    futures = [client.submit([array]) for array in arrays]
    for array, future in zip(arrays, futures, strict=True):
        assert same(array, future.result(30)[0])


@pytest.mark.gevent
def test_arrays_of_odd_shapes_types_and_layouts_come_back_equal(client_of):
    base = np.arange(120, dtype=np.float32).reshape(4, 5, 6)
    arrays = [
        np.zeros(0, np.float32),
        np.zeros((0, 5), np.float32),
        np.zeros((3, 0, 2), np.int8),
        np.array(3.5, np.float32),
        base[::2, ::-1, 1:4],
        base.T,
        np.asfortranarray(base),
        np.broadcast_to(np.float32(2), (3, 4)),
        np.array([[True], [False]]),
        np.array([1 + 2j]),
        np.array(["ä", "中文"]),
        np.arange(5, dtype=">i4"),
        np.arange(5, dtype=np.float16),
        np.array(["2026-01-01"], "datetime64[D]"),
    ]
    answers = client_of("echo").predict(arrays)
    for array, answer in zip(arrays, answers, strict=True):
        assert same(array, answer), array
        answer[...] = answer  # it can be written to


@pytest.mark.gevent
def test_text_bytes_and_nested_values_come_back_equal(client_of):
    items = [
        "",
        "Grüße, 世界, مرحبا, नमस्ते, 🙂",
        "\0",
        "x" * 100_000,
        b"",
        bytes(range(256)),
        None,
        True,
        -(2**63),
        2**64 - 1,
        0.1,
        float("inf"),
        [],
        {},
        {"a": [1, {"b": [None, "ü", b"\xff"]}], 7: [[[]]]},
        dt.datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=dt.timezone.utc),
    ]
    answers = client_of("echo").predict(items)
    assert all(map(same, items, answers))
    assert client_of("echo").predict([(1, 2)]) == [[1, 2]]


@pytest.mark.gevent
def test_arrays_come_back_equal_from_deep_inside_other_values(client_of):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    [answer] = client_of("echo").predict([{"a": [None, {"b": array}], "n": np.float32(1.5)}])
    assert same(answer["a"][1]["b"], array)
    assert same(answer["n"], np.float32(1.5))


@pytest.mark.gevent
@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["fine", {"a": [1, {2, 3}]}], r"items\[1\]\['a'\]\[1\] is set.*list"),
        ([object()], r"items\[0\] is object"),
        ([2**64], "64 bits"),
        ([np.array([object()])], "dtype object"),
        (["\ud800"], "surrogate"),
    ],
)
def test_what_cannot_be_sent_raises_at_the_caller_and_names_the_place(client_of, items, words):
    client = client_of("echo")
    with pytest.raises(errors.BadRequest, match=words) as caught:
        client.predict(items)
    assert caught.value.index == len(items) - 1
    with pytest.raises(errors.BadRequest, match=words):
        client.submit(items)
    assert client.predict([1]) == [1]


@pytest.mark.gevent
@pytest.mark.parametrize("items", ["text", b"bytes", {"a": 1}])
def test_a_lone_item_in_place_of_a_list_is_refused_with_the_fix(client_of, items):
    with pytest.raises(TypeError, match=r"wrap it: \[item\]"):
        client_of("echo").predict(items)
    with pytest.raises(TypeError, match=r"wrap it: \[item\]"):
        client_of("echo").submit(items)


# Errors of single items


@pytest.mark.gevent
def test_a_bad_item_fails_alone_and_its_error_says_where_and_why(client_of):
    client = client_of("picky")
    with pytest.raises(errors.PredictError, match="the model met boom") as caught:
        client.predict(["a", "b", "boom"])
    assert caught.value.type == "ValueError"
    assert caught.value.index == 2
    assert "tests/helpers/models.py" in caught.value.traceback
    assert not caught.value.retryable


@pytest.mark.gevent
def test_the_error_of_the_lowest_index_is_raised(client_of):
    client = client_of("picky")
    for _ in range(20):
        with pytest.raises(errors.PredictError) as caught:
            client.predict(["a", "bad", "b", "boom"])
        assert (caught.value.index, caught.value.type) == (1, "KeyError")


@pytest.mark.gevent
def test_errors_stand_in_their_items_places_where_asked_for(client_of):
    answers = client_of("picky").predict(["a", "bad", "b", "boom"], return_exceptions=True)
    assert (answers[0], answers[2]) == ("a", "b")
    assert [type(answers[i]) for i in (1, 3)] == [errors.PredictError] * 2
    assert [answers[i].index for i in (1, 3)] == [1, 3]
    assert answers[1].traceback == ""


@pytest.mark.gevent
def test_batch_mates_of_a_bad_item_are_answered(client_of):
    client = client_of("picky")
    futures = [client.submit(["boom" if i == 17 else i]) for i in range(60)]
    for i, future in enumerate(futures):
        if i == 17:
            assert isinstance(future.exception(20), errors.PredictError)
        else:
            assert future.result(20) == [i]


# Futures


@pytest.mark.gevent
def test_a_future_is_done_when_its_answer_is_there_and_waiting_for_it_cancels_nothing(shared):
    with shared.gate() as (client, gate):
        future = client.submit(["a"])
        assert future.done() is False
        with pytest.raises(futures.TimeoutError):
            future.result(0.05)
        assert future.done() is False
        gate.wait_begun("a")
        gate.open()
        [[item, _]] = future.result(20)
        assert item == "a"
        assert future.done() is True


@pytest.mark.gevent
def test_a_cancelled_future_leaves_the_queue_and_is_never_run(shared):
    with shared.gate() as (client, gate):
        first = client.submit(["first"])
        gate.wait_begun("first")
        waiting = [client.submit([f"w{i}", f"v{i}"]) for i in range(10)]
        until(lambda: shared.at_workers("gate") == 2)
        assert all(future.cancel() for future in waiting)
        assert all(future.cancelled() and future.done() for future in waiting)
        with pytest.raises(CancelledError):
            waiting[0].result(1)
        until(lambda: shared.open_items("gate") == 1)
        gate.open()
        assert first.result(20)[0][0] == "first"
        assert not first.cancel()
        client.predict(["last"])
        assert gate.begun == ["first", "last"]


@pytest.mark.gevent
def test_a_running_items_answer_is_dropped_when_it_is_cancelled(shared):
    with shared.gate() as (client, gate):
        future = client.submit(["running"])
        gate.wait_begun("running")
        assert future.cancel()
        gate.open()
        assert client.predict(["next"])[0][0] == "next"
        assert future.cancelled()


@pytest.mark.gevent
def test_done_callbacks_may_block_and_make_calls_themselves(client_of):
    client = client_of("double")
    found = []
    ended = threading.Event()

    def call_again(future):
        time.sleep(0.05)
        found.append(client.predict([future.result()[0] + 1]))
        ended.set()

    client.submit([1]).add_done_callback(call_again)
    assert client.predict([5]) == [10]
    assert ended.wait(20)
    assert found == [[6]]


@pytest.mark.gevent
def test_a_done_callback_that_raises_harms_nobody(client_of, caplog):
    client = client_of("double")
    future = client.submit([1])
    ended = threading.Event()
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda _: ended.set())
    assert ended.wait(20)
    assert client.predict([2]) == [4]


# Giving up


@pytest.mark.asyncio
async def test_a_cancelled_task_takes_its_items_out_of_the_queues(shared):
    with shared.gate() as (_, gate):
        async with aio.Client(shared.address, model="gate") as client:
            first = client.submit(["first"])
            second = client.submit(["second"])
            while "first" not in gate.begun:
                await asyncio.sleep(0.01)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                await asyncio.wait_for(client.predict(["third"]), 0.05)
            await asyncio.to_thread(until, lambda: shared.open_items("gate") == 1)
            gate.open()
            assert (await first)[0][0] == "first"
            assert (await client.predict(["last"]))[0][0] == "last"
            assert gate.begun == ["first", "last"]


KILLED_GREENLET = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from pathlib import Path
from zstreamer import Client
from zstreamer.client.status import fetch

address, folder = sys.argv[1:]
client = Client(address, model="gate")
first = gevent.spawn(client.predict, ["first"])
begun = Path(folder, "begun")
while not begun.exists() or "first" not in begun.read_text():
    gevent.sleep(0.01)
second = gevent.spawn(client.predict, ["second"])
gevent.sleep(0.05)
second.kill()
with gevent.Timeout(0.05, False):
    client.predict(["third"])
    raise SystemExit("the gate is shut")
while fetch(address)["models"]["gate"]["workers"][0]["waiting"]:
    gevent.sleep(0.01)
Path(folder, "open").touch()
assert first.get()[0][0] == "first"
assert client.predict(["last"])[0][0] == "last"
assert begun.read_text().split() == ["first", "last"], begun.read_text()
print("fine")
"""


def test_a_killed_greenlet_takes_its_items_out_of_the_queues(shared, tmp_path):
    with shared.gate() as (_, gate):
        succeed(tmp_path, KILLED_GREENLET, shared.address, gate.folder)


@pytest.mark.gevent
def test_close_ends_open_calls_with_cancelled(shared):
    with shared.gate() as (client, gate):
        future = client.submit(["a"])
        caught = []

        def call():
            try:
                client.predict(["b"])
            except errors.Cancelled as error:
                caught.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        gate.wait_begun("a")
        until(lambda: shared.at_workers("gate") == 2)
        client.close()
        thread.join(10)
        assert [str(error) for error in caught] == ["the client was closed"]
        assert isinstance(future.exception(10), errors.Cancelled)
        with pytest.raises(errors.Cancelled, match="closed"):
            client.predict([1])
        with pytest.raises(errors.Cancelled, match="closed"):
            client.submit([1])
        client.close()


@pytest.mark.asyncio
async def test_closing_an_awaited_client_ends_its_open_calls(shared):
    with shared.gate() as (_, gate):
        client = aio.Client(shared.address, model="gate")
        task = client.submit(["a"])
        while "a" not in gate.begun:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(errors.Cancelled):
            await task
        with pytest.raises(errors.Cancelled):
            await client.predict([1])


SUBMITTER = """
import signal, sys
from zstreamer import Client
client = Client(sys.argv[1], model="gate")
futures = [client.submit([f"lost{i}"]) for i in range(5)]
signal.pause()
"""


def test_items_of_a_program_that_was_killed_leave_the_queues(shared, tmp_path):
    with shared.gate() as (client, gate):
        first = client.submit(["first"])
        gate.wait_begun("first")
        with running(tmp_path, SUBMITTER, shared.address) as program:
            until(lambda: shared.model("gate")["queued"] == 4)
            program.kill()
        until(lambda: shared.open_items("gate") == 1)
        gate.open()
        assert first.result(20)[0][0] == "first"
        client.predict(["last"])
        assert gate.begun == ["first", "last"]


# Waiting


@pytest.mark.gevent
def test_higher_priority_goes_first(shared):
    with shared.gate() as (client, gate):
        futures = [client.submit(["running"])]
        gate.wait_begun("running")
        futures += [client.submit(["gathered"])]
        until(lambda: shared.at_workers("gate") == 2)
        futures += [client.submit([f"low{i}"], priority=-1) for i in range(3)]
        futures += [client.submit([f"usual{i}"]) for i in range(3)]
        futures += [client.submit([f"high{i}"], priority=5) for i in range(3)]
        until(lambda: shared.model("gate")["queued"] == 9)
        gate.open()
        for future in futures:
            future.result(20)
        assert [name.rstrip("0123456789") for name in gate.begun] == [
            "running",
            "gathered",
            *["high"] * 3,
            *["usual"] * 3,
            *["low"] * 3,
        ]


@pytest.mark.gevent
def test_wait_ready_returns_when_a_worker_is_warm_and_says_why_not_before():
    with Cluster(model_grace=60) as cluster:
        cluster.wait_up()
        client = cluster.client()
        with pytest.raises(errors.NoWorker, match="no worker"):
            client.wait_ready(0.5)
        cluster.worker("double")
        client.wait_ready(30)
        client.wait_ready(5)
        assert cluster.model()["ready"]
        assert client.predict([4]) == [8]


@pytest.mark.gevent
def test_a_call_waits_for_a_worker_that_comes_later():
    with Cluster(model_grace=60) as cluster:
        future = cluster.client().submit([4])
        cluster.wait_up()
        cluster.worker("double")
        assert future.result(30) == [8]


@pytest.mark.gevent
def test_a_call_waits_for_a_broker_that_comes_later():
    with Cluster() as cluster:
        cluster.broker.kill()
        cluster.broker.close()
        future = cluster.client(connect_timeout=30, timeout=30).submit([4])
        cluster.worker("double")
        cluster.start_broker()
        assert future.result(30) == [8]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"address": ""}, "no address"),
        ({"address": "localhost:7787"}, "'localhost:7787' is not an address: give tcp://HOST:7787"),
        ({"address": "tcp://nonsense"}, "'tcp://nonsense' is not an address"),
        ({"address": ["tcp://a:1", "tcp://b:65536"]}, "'tcp://b:65536' is not an address"),
        ({"timeout": 0}, "timeout must be a positive number"),
        ({"connect_timeout": "5"}, "connect_timeout must be"),
        ({"keys": "secret"}, "cannot read the key file secret"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_with_the_fix(arguments, words):
    with pytest.raises(ValueError, match=words):
        Client(**arguments)


@pytest.mark.gevent
def test_one_client_of_two_brokers_uses_the_one_that_lives():
    with Cluster() as one, Cluster() as other:
        for cluster in (one, other):
            cluster.worker("double")
        for cluster in (one, other):
            cluster.wait_warm(1)
        with Client([one.address, other.address], timeout=20) as client:
            assert client.predict(list(range(500))) == [2 * i for i in range(500)]
            one.broker.kill()
            for i in range(20):
                assert client.predict([i]) == [2 * i]
