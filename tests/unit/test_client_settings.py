"""What a client is told is checked where it is called: nothing else could be sent as it is."""

import asyncio

import numpy as np
import pytest

from zstreamer import Client, aio
from zstreamer.client.settings import MAX_PRIORITY
from zstreamer.errors import BadRequest


@pytest.fixture
def client():
    with Client("tcp://127.0.0.1:7") as client:  # nothing is connected before a call is accepted
        yield client


@pytest.mark.parametrize(
    ("priority", "kind"),
    [
        (1.5, TypeError),
        ("high", TypeError),
        (None, TypeError),
        (MAX_PRIORITY + 1, ValueError),
        (-MAX_PRIORITY - 1, ValueError),
    ],
)
def test_a_priority_that_no_message_can_hold_is_refused_at_once(client, priority, kind):
    with pytest.raises(kind, match="priority must"):
        client.predict(["x"], priority=priority)
    with pytest.raises(kind, match="priority must"):
        client.submit(["x"], priority=priority)
    assert client.open_calls == 0


@pytest.mark.parametrize("priority", [True, np.int8(-3), MAX_PRIORITY, -MAX_PRIORITY])
def test_whole_numbers_of_any_kind_are_priorities(client, priority):
    call = client._settings.call(["x"], None, None, priority, True, False)
    assert type(call.priority) is int
    assert call.priority == priority


@pytest.mark.parametrize("model", ["", "x" * 256, 7, "\ud800"])
def test_what_cannot_be_a_models_name_is_refused_at_once(client, model):
    with pytest.raises(BadRequest, match="a model's name"):
        client.predict(["x"], model=model)
    assert client.open_calls == 0


def test_the_client_for_asyncio_refuses_the_same():
    async def main():
        async with aio.Client("tcp://127.0.0.1:7") as client:
            with pytest.raises(TypeError, match="priority must"):
                await client.predict(["x"], priority=1.5)
            with pytest.raises(BadRequest, match="a model's name"):
                await client.predict(["x"], model="\ud800")

    asyncio.run(main())
