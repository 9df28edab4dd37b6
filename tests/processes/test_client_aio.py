"""What only the asyncio client has: event loops, and calls without a coroutine."""

import asyncio
import threading

import pytest

from tests.helpers.waiting import until
from zstreamer import aio, errors


async def started(client, items, **settings):
    """Start a call and wait for its end."""
    done = asyncio.get_running_loop().create_future()
    call = client.start(items, done.set_result, **settings)
    assert await done is call
    return call


@pytest.mark.asyncio
async def test_a_call_without_a_coroutine_calls_back(shared):
    async with aio.Client(shared.address, connect_timeout=20) as client:
        assert (await started(client, [1, "a"], model="double")).results() == [2, "aa"]
        failed = await started(client, ["fine", "boom"], model="picky", return_exceptions=True)
        fine, boom = failed.results()
        assert (fine, type(boom)) == ("fine", errors.PredictError)
        with pytest.raises(errors.DeadlineExceeded):
            with shared.gate():
                (await started(client, [1], model="gate", timeout=0.1)).results()


@pytest.mark.asyncio
async def test_a_call_that_is_given_up_ends_as_cancelled_and_leaves_the_queues(shared):
    with shared.gate() as (_, gated):
        async with aio.Client(shared.address, connect_timeout=20) as client:
            done = asyncio.get_running_loop().create_future()
            await started(client, [1], model="echo")  # it is connected
            call = client.start([1, 2, 3], done.set_result, model="gate")
            await asyncio.to_thread(gated.wait_begun, "1")
            client.cancel(call)
            with pytest.raises(errors.Cancelled):
                (await done).results()
            await asyncio.to_thread(until, lambda: shared.open_items("gate") == 1)


@pytest.mark.asyncio
async def test_a_deadline_is_kept_where_a_loops_timers_come_early(monkeypatch):
    loop = asyncio.get_running_loop()
    punctual = loop.call_later

    def early(delay, *call):
        return punctual(max(0, delay - 0.001), *call)  # as uvloop rounds to milliseconds

    monkeypatch.setattr(loop, "call_later", early)
    async with aio.Client("tcp://127.0.0.1:1", connect_timeout=60) as client:
        with pytest.raises(errors.BrokerUnreachable):
            await asyncio.wait_for(client.predict([1], timeout=0.02), 10)


def test_one_client_serves_one_event_loop_after_the_other(shared):
    client = aio.Client(shared.address, model="double", connect_timeout=20)
    for i in range(3):
        assert asyncio.run(client.predict([i])) == [2 * i]
        assert len(client._drivers) == 1

    async def last():
        [answer] = (await started(client, [5])).results()
        await client.wait_ready(10)
        await client.close()
        return answer

    assert asyncio.run(last()) == 10
    with pytest.raises(errors.Cancelled, match="closed"):
        asyncio.run(client.predict([1]))


def test_one_client_serves_several_event_loops_at_once(shared):
    client = aio.Client(shared.address, model="double", connect_timeout=20)
    barrier = threading.Barrier(3, timeout=30)
    answers = []

    async def calls(number):
        for i in range(20):
            [answer] = await client.predict([number + i])
            assert answer == 2 * (number + i)
            if not i:
                await asyncio.to_thread(barrier.wait)
        answers.append(number)

    threads = [threading.Thread(target=asyncio.run, args=(calls(100 * i),)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == [0, 100, 200]
    asyncio.run(client.close())


def test_a_loop_that_was_closed_amid_a_call_is_forgotten(shared):
    client = aio.Client(shared.address, connect_timeout=20)
    with shared.gate() as (_, gated):
        loop = asyncio.new_event_loop()
        task = loop.create_task(client.predict([1], model="gate"))
        loop.run_until_complete(asyncio.wait([task], timeout=0.1))
        loop.run_until_complete(asyncio.to_thread(gated.wait_begun, "1"))
        loop.close()
        assert asyncio.run(client.predict([1], model="double")) == [2]
        task._log_destroy_pending = False
        del task
    until(lambda: shared.open_items("gate") == 0)
    asyncio.run(client.close())


def test_close_ends_the_calls_of_a_loop_in_another_thread(shared):
    client = aio.Client(shared.address, connect_timeout=20)
    outcomes = []

    async def call():
        try:
            await client.predict([1], model="gate")
        except errors.Cancelled as error:
            outcomes.append(error)

    with shared.gate() as (_, gated):
        thread = threading.Thread(target=asyncio.run, args=(call(),))
        thread.start()
        gated.wait_begun("1")
        asyncio.run(client.close())
        thread.join(10)
    assert len(outcomes) == 1
