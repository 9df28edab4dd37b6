"""What only the asyncio client has: calls without a coroutine, and loops that are not punctual."""

import asyncio

import pytest

from tests.helpers.waiting import until
from zstreamer import aio, errors

pytestmark = pytest.mark.asyncio


async def started(client, items, **settings):
    """Start a call and wait for its end."""
    done = asyncio.get_running_loop().create_future()
    call = client.start(items, done.set_result, **settings)
    assert await done is call
    return call


async def test_a_call_without_a_coroutine_calls_back(shared):
    async with aio.Client(shared.address, connect_timeout=20) as client:
        assert (await started(client, [1, "a"], model="double")).results() == [2, "aa"]
        failed = await started(client, ["fine", "boom"], model="picky", return_exceptions=True)
        fine, boom = failed.results()
        assert (fine, type(boom)) == ("fine", errors.PredictError)
        with pytest.raises(errors.DeadlineExceeded):
            with shared.gate():
                (await started(client, [1], model="gate", timeout=0.1)).results()


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


async def test_a_deadline_is_kept_where_a_loops_timers_come_early(monkeypatch):
    loop = asyncio.get_running_loop()
    punctual = loop.call_later

    def early(delay, *call):
        return punctual(max(0, delay - 0.001), *call)  # as uvloop rounds to milliseconds

    monkeypatch.setattr(loop, "call_later", early)
    async with aio.Client("tcp://127.0.0.1:1", connect_timeout=60) as client:
        with pytest.raises(errors.BrokerUnreachable):
            await asyncio.wait_for(client.predict([1], timeout=0.02), 10)
