"""`map`: any number of items through a real cluster, in threads, greenlets and asyncio."""

import asyncio
import queue
import sys
import time

import pytest

from tests.helpers.cluster import Cluster
from tests.helpers.models import echo
from tests.helpers.program import succeed
from tests.helpers.waiting import until
from zstreamer import Client, Streamer, ThreadedStreamer, aio, errors

MANY = 20_000


def counted(total, read):
    """A generator that notes how many items were read of it."""
    for number in range(total):
        read.append(number)
        yield number


# Order, memory, who waits for whom


@pytest.mark.gevent
@pytest.mark.parametrize("items", [range(MANY), list(range(MANY)), iter(range(MANY))], ids=type)
def test_the_outputs_of_any_iterable_come_in_order(client_of, items):
    outputs = client_of("double").map(items)
    assert list(outputs) == [2 * number for number in range(MANY)]
    assert (outputs.index, outputs.failed) == (MANY, 0)


@pytest.mark.gevent
def test_no_items_give_no_outputs(client_of):
    assert list(client_of("double").map([])) == []
    assert list(client_of("double").map(iter(()))) == []


@pytest.mark.gevent
def test_items_are_read_only_as_outputs_are_taken(client_of):
    read = []
    outputs = client_of("double").map(counted(10**9, read))
    assert read == [], "nothing is read before the first output is asked for"
    assert [next(outputs) for _ in range(5000)] == list(range(0, 10_000, 2))
    assert outputs.index == 5000
    assert len(read) < 5000 + 4096
    outputs.close()
    assert list(outputs) == []


@pytest.mark.gevent
def test_outputs_come_while_the_iterable_blocks(client_of):
    items = queue.Queue()
    outputs = client_of("double").map(iter(items.get, None))
    for number in range(5):
        items.put(number)
        assert next(outputs) == 2 * number
    items.put(None)
    assert list(outputs) == []


def test_who_drops_the_iterator_ends_what_it_has_under_way(shared):
    read = []
    with shared.gate() as (client, gated):
        gated.open()
        outputs = iter(client.map(counted(1000, read), chunk=2))
        assert next(outputs)[0] == 0
        gated.shut()
        next(outputs)
        until(lambda: shared.open_items("gate") > 0)
        del outputs
        gated.open()
        until(lambda: shared.open_items("gate") == 0)
    assert len(read) < 1000


# Errors


@pytest.mark.gevent
def test_errors_stand_in_their_places_with_their_index_in_the_whole(client_of):
    items = ["boom" if number in (7, 4000) else f"item {number}" for number in range(5000)]
    outputs = client_of("picky").map(items)
    found = list(outputs)
    failed = [output for output in found if isinstance(output, errors.PredictError)]
    assert [error.index for error in failed] == [7, 4000]
    assert [index for index, output in enumerate(found) if output != items[index]] == [7, 4000]
    assert outputs.failed == 2


def test_an_item_that_cannot_be_sent_fails_in_its_place(client_of):
    items = [1, {2}, 3, object(), 5]
    first, second, third, fourth, fifth = client_of("echo").map(items)
    assert (first, third, fifth) == (1, 3, 5)
    assert (second.index, fourth.index) == (1, 3)
    assert "items[3] is object, which cannot be sent" in str(fourth)


def test_items_that_are_late_fail_each_in_its_place(shared):
    with shared.gate() as (client, _):
        found = list(client.map(["a", "b", "c"], timeout=0.2))
    assert [type(error) for error in found] == [errors.DeadlineExceeded] * 3
    assert [error.index for error in found] == [0, 1, 2]
    with ThreadedStreamer(lambda batch: time.sleep(0.5) or batch, 8) as streamer:
        late = list(streamer.map(["a", "b", "c"], timeout=0.1))
    assert [error.index for error in late] == [0, 1, 2]


@pytest.mark.gevent
def test_the_first_error_is_raised_where_errors_are_not_kept_and_the_job_can_go_on_there(client_of):
    client = client_of("picky")
    items = ["boom" if number == 777 else number for number in range(2000)]
    outputs = client.map(items, return_exceptions=False)
    found = []
    with pytest.raises(errors.PredictError) as caught:
        found.extend(outputs)
    assert (caught.value.index, outputs.index) == (777, 777)
    assert list(client.map(items, start=778)) == items[778:]


def test_what_the_iterable_raises_is_raised_after_the_outputs_of_what_came_before(client_of):
    def items():
        yield from range(100)
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(client_of("echo").map(items()))
    assert found == list(range(100)) or not found


def test_a_job_without_a_broker_or_a_model_fails_at_once(shared):
    with Client("tcp://127.0.0.1:9", connect_timeout=0.3) as client:
        with pytest.raises(errors.BrokerUnreachable) as caught:
            list(client.map(range(100)))
    assert caught.value.index == 0
    time.sleep(3.1 - min(3.1, shared.status()["broker"]["uptime"]))
    with pytest.raises(errors.ModelNotFound):
        list(shared.client(model="nobody's").map(range(100)))


@pytest.mark.parametrize(
    ("items", "settings", "words"),
    [
        ("text", {}, "not str; wrap it"),
        ({1, 2}, {}, "must have an order"),
        (5, {}, "must be an iterable"),
        ([1], {"start": -1}, "start must be a whole number of at least 0"),
        ([1], {"chunk": 0}, "chunk must be a whole number of at least 1"),
        ([1], {"timeout": 0}, "timeout must be a positive number"),
        ([1], {"patience": -1}, "patience must be a positive number"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(items, settings, words):
    for one in (Client(), ThreadedStreamer(echo, 8)):
        with pytest.raises((TypeError, ValueError), match=words):
            one.map(items, **settings)


# Faults and load


@pytest.mark.gevent
def test_a_broker_that_is_restarted_costs_no_item():
    with Cluster(tcp=True) as cluster:
        cluster.worker("double", batch_size=16)
        client = cluster.client()
        outputs = client.map(iter(range(30_000)))
        found = [next(outputs) for _ in range(3000)]
        cluster.broker.close()
        cluster.start_broker()
        found.extend(outputs)
    assert found == [2 * number for number in range(30_000)]


def test_a_full_broker_is_waited_for():
    with Cluster(max_items=40, client_items=30, window_items=400) as cluster:
        cluster.worker("double", batch_size=8)
        assert list(cluster.client().map(iter(range(100)))) == list(range(0, 200, 2))


def test_other_calls_go_first(shared):
    with shared.serving("Sleeper", batch_size=4, init_kwargs={"seconds": 0.02}) as client:
        outputs = client.map(range(2000))
        next(outputs)
        begun = time.monotonic()
        assert client.predict(["now"], timeout=5) == ["now"]
        assert time.monotonic() - begun < 4.0, "the job has ten seconds of work before it"
        outputs.close()


# Progress


def test_progress_is_shown(client_of, capfd):
    pytest.importorskip("tqdm")
    items = ["boom" if number == 7 else number for number in range(2000)]
    list(client_of("picky").map(items, start=5, progress=True))
    shown = capfd.readouterr().err
    assert "2000/2000" in shown
    assert "failed=1" in shown


def test_progress_without_tqdm_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'zstreamer\[progress\]'"):
        Client().map([1], progress=True)


# asyncio


async def later(total):
    for number in range(total):
        if number % 1000 == 0:
            await asyncio.sleep(0)
        yield number


@pytest.mark.asyncio
@pytest.mark.parametrize("items", [range(MANY), iter(range(MANY)), later(MANY)], ids=str)
async def test_the_same_in_asyncio(shared, items):
    async with aio.Client(shared.address, model="double", connect_timeout=20) as client:
        outputs = client.map(items)
        assert [output async for output in outputs] == [2 * number for number in range(MANY)]
        assert outputs.index == MANY


@pytest.mark.asyncio
async def test_outputs_come_while_an_asynchronous_iterable_waits(shared):
    items = asyncio.Queue()

    async def arriving():
        while (item := await items.get()) is not None:
            yield item

    async with aio.Client(shared.address, model="double", connect_timeout=20) as client:
        async with client.map(arriving(), start=1) as outputs:
            await items.put("passed over")
            for number in range(5):
                await items.put(number)
                assert await anext(outputs) == 2 * number
            assert outputs.index == 6


@pytest.mark.asyncio
async def test_errors_in_asyncio(shared):
    async with aio.Client(shared.address, model="picky", connect_timeout=20) as client:
        found = [output async for output in client.map(["a", "boom", "b"])]
        assert [found[0], found[1].index, found[2]] == ["a", 1, "b"]
        with pytest.raises(errors.PredictError) as caught:
            async for _ in client.map(["a", "boom"], return_exceptions=False):
                pass
        assert caught.value.index == 1
        with pytest.raises(TypeError, match=r"for zstreamer\.aio\.Client"):
            list(shared.client().map(later(1)))


# Streamers


@pytest.mark.gevent
def test_the_same_through_a_threaded_streamer():
    with ThreadedStreamer(lambda batch: [2 * item for item in batch], 64) as streamer:
        assert list(streamer.map(iter(range(5000)))) == list(range(0, 10_000, 2))
        with pytest.raises(errors.PredictError) as caught:
            list(streamer.map([1, 2, None], return_exceptions=False))
        assert caught.value.index == 2


def test_the_same_through_a_streamer():
    with Streamer(echo, 64) as streamer:
        items = [{number} for number in range(1000)]
        assert list(streamer.map(iter(items))) == items
    with pytest.raises(errors.Cancelled):
        streamer.map([1])


# Under gevent


def test_a_generator_that_waits_lets_other_greenlets_run(tmp_path, shared):
    succeed(
        tmp_path,
        f"""
from gevent import monkey; monkey.patch_all()
import gevent, time
from zstreamer import Client

ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)

def items():
    for number in range(20):
        time.sleep(0.02)
        yield number

gevent.spawn(tick)
with Client({shared.address!r}, model="double", connect_timeout=20) as client:
    assert list(client.map(items())) == list(range(0, 40, 2))
assert len(ticks) > 10, ticks
print("fine")
""",
    )
