"""What a model declares of its tensors, and how that reaches whoever asks the broker."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.cluster import Cluster
from tests.helpers.waiting import until
from zstreamer import ManagedModel, Tensor, aio, errors
from zstreamer.model import Loaded
from zstreamer.signature import MAX_EXAMPLE, declared, example_text, understood


class Scores(ManagedModel):
    """A model that says what it takes and gives; workers of other tests run it."""

    inputs = (Tensor("tokens", "INT64", (-1,)), Tensor("mask", "BOOL", (-1,)))
    outputs = (Tensor("score", "FP32"),)

    def predict(self, batch):
        return [0.5] * len(batch)


def test_what_is_declared_comes_out_as_it_went_in():
    tensors = (Tensor("image", "UINT8", [224, 224, 3]), Tensor("name"), Tensor("jpeg", text=False))
    assert understood(declared(tensors)) == tensors
    assert understood(declared(None)) is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Tensor(""), "name"),
        (lambda: Tensor("x", "FLOAT"), "no datatype 'FLOAT'; use BOOL"),
        (lambda: Tensor("x", "FP32", 3), "must be a list of whole numbers"),
        (lambda: Tensor("x", "FP32", [-2]), "must be a list of whole numbers"),
        (lambda: declared("pixels"), "lists of zstreamer.Tensor"),
        (lambda: declared([("x", "FP32", [])]), "lists of zstreamer.Tensor"),
        (lambda: declared([]), "one name each"),
        (lambda: declared([Tensor("x"), Tensor("x", "FP32")]), "one name each"),
        (lambda: understood({"name": "x"}), "not a list of tensors"),
        (lambda: understood([{"name": "x", "datatype": [], "shape": []}]), "no datatype"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused_in_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_model_whose_declaration_makes_no_sense_does_not_load():
    class Wrong(Scores):
        inputs = "tokens"

    with pytest.raises(ValueError, match=r"zstreamer\.Tensor"):
        Loaded(Wrong)


def test_other_objects_may_mean_something_else_by_these_names():
    class Other:
        inputs = 7

        def predict(self, batch):
            return batch

    assert Loaded(Other()).inputs is None


def test_the_broker_tells_what_a_model_takes_once_one_is_warm():
    with Cluster() as cluster:
        cluster.worker("tests.unit.test_signature:Scores", model="scores")
        cluster.worker("double", model="plain")
        cluster.client(model="scores").wait_ready(30)
        cluster.client(model="plain").wait_ready(30)
        until(lambda: cluster.model("scores")["inputs"])
        scores = cluster.model("scores")
        assert understood(scores["inputs"]) == Scores.inputs
        assert understood(scores["outputs"]) == Scores.outputs
        assert cluster.model("plain")["inputs"] is None


@pytest.mark.gevent
def test_a_call_may_name_its_model():
    with Cluster() as cluster:
        cluster.worker("double", model="double")
        cluster.worker("echo", model="echo")
        client = cluster.client(model="double")
        client.wait_ready(30)
        client.wait_ready(30, model="echo")
        assert client.predict([1]) == [2]
        assert client.predict([1], model="echo") == [1]
        assert client.submit([1], model="echo").result(20) == [1]


@pytest.mark.asyncio
async def test_an_awaited_call_may_name_its_model():
    with Cluster() as cluster:
        cluster.worker("echo", model="echo")
        async with aio.Client(cluster.address, connect_timeout=20.0) as client:
            await client.wait_ready(30, model="echo")
            assert await client.predict([1], model="echo") == [1]
            assert await client.submit([2], model="echo") == [2]


@pytest.mark.gevent
@pytest.mark.parametrize("name", ["", 7, "x" * 256])
def test_what_cannot_be_a_models_name_is_refused_before_anything_is_sent(client_of, name):
    with pytest.raises(errors.BadRequest, match="1 to 255 characters"):
        client_of("double").predict([1], model=name)


class Rude:
    """Raises whatever is asked of it."""

    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize(
    ("example", "text"),
    [
        (None, ""),
        ([], ""),
        (["ünï"], '"ünï"'),
        (({"a": [1, 2.5, None]}, 2), '{"a": [1, 2.5, null]}'),
        ([b"\x00\xff"], '{"b64": "AP8="}'),
        ([np.arange(3)], "[0, 1, 2]"),
        (np.zeros((2, 2)), "[0.0, 0.0]"),
        ([{"x": np.float32(0.5)}], '{"x": 0.5}'),
        ([np.zeros((10**4, 10**4), "u1")], ""),
        (["x" * MAX_EXAMPLE], ""),
        ([float("nan")], ""),
        (["a lone \udc80"], ""),
        ([object()], ""),
        (5, ""),
    ],
)
def test_an_example_is_told_as_the_json_that_a_caller_sends(example, text):
    assert example_text(example) == text


def test_an_example_that_cannot_be_looked_at_is_none():
    assert example_text(Rude()) == example_text([Rude()]) == ""


class Greeter(ManagedModel):
    example = ("hello", "more")

    def predict(self, batch):
        return batch


def test_whoever_asks_the_broker_has_the_example_of_a_warm_model():
    with Cluster() as cluster:
        cluster.worker(f"{__name__}:Greeter", model="greeter")
        cluster.wait_warm(1, "greeter")
        assert cluster.model("greeter")["example"] == '"hello"'
