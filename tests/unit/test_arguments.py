"""Arguments that make no sense are refused at once, by an error that names them."""

import asyncio

import numpy as np
import pytest

from zstreamer import Client, Streamer, ThreadedStreamer, aio
from zstreamer.client.settings import MAX_PRIORITY
from zstreamer.errors import BadRequest


@pytest.fixture
def client():
    with Client("tcp://127.0.0.1:7") as client:  # nothing is connected before a call is accepted
        yield client


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"address": 5}, "address 5 is not text"),
        ({"address": b"tcp://127.0.0.1:7"}, "is not text"),
        ({"address": ["tcp://127.0.0.1:7", None]}, "address None is not text"),
        ({"model": None}, "a model's name"),
        ({"timeout": 0}, "timeout must be"),
        ({"connect_timeout": "soon"}, "connect_timeout must be"),
        ({"heartbeat": "often"}, "heartbeat must be"),
        ({"heartbeat": 2.0}, "the timeout must be the longer"),
        ({"heartbeat": 1e-9}, "heartbeat is 1e-09 s"),
        ({"heartbeat_timeout": None}, "heartbeat_timeout must be"),
        ({"heartbeat_timeout": 1e5}, "6,553 s are possible"),
        ({"heartbeat_timeout": float("inf")}, "6,553 s are possible"),
        ({"tenant": None}, "tenant must be"),
    ],
)
def test_a_client_is_not_made_of_what_makes_no_sense(given, words):
    with pytest.raises(ValueError, match=words):
        Client(**given)
    with pytest.raises(ValueError, match=words):
        aio.Client(**given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"priority": "high"}, "priority must"),
        ({"chunk": "all"}, "chunk must be a whole number"),
        ({"start": 1.5}, "start must be a whole number"),
        ({"patience": -1}, "patience must be"),
    ],
)
def test_a_job_is_not_begun_with_what_makes_no_sense(client, given, words):
    with ThreadedStreamer(sorted, 1) as streamer:
        for each in (client, streamer):
            with pytest.raises((TypeError, ValueError), match=words):
                each.map([1], **given)


@pytest.mark.parametrize("latency", [-1, "short", None, float("nan"), True])
def test_a_latency_is_a_number_of_seconds(latency):
    with pytest.raises(ValueError, match="max_latency must be"):
        ThreadedStreamer(sorted, 1, latency)


@pytest.mark.parametrize("kind", [Streamer, ThreadedStreamer])
@pytest.mark.parametrize("model", [None, 5, "module:Model"])
def test_what_runs_no_batch_is_no_model(kind, model):
    with pytest.raises(TypeError, match="is not a model"):
        kind(model, 1)


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
