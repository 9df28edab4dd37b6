"""What `POST /v1/embeddings` asks of a model, and what it answers, in OpenAI's form."""

import base64
import json

import numpy as np
import pytest

from tests.helpers.web_requests import Site, answer, header, snapshot
from zstreamer.errors import Overloaded, PredictError
from zstreamer.keys.bearer import Callers
from zstreamer.web.api.guard import Guard
from zstreamer.web.api.limits import Limits

PATH = "/v1/embeddings"
BYTES = [{"name": "input", "datatype": "BYTES", "shape": []}]
VECTOR = [{"name": "embedding", "datatype": "FP32", "shape": [4]}]


def vector(item):
    """Four numbers that tell items apart."""
    number = float(len(item)) if isinstance(item, str) else float(sum(item))
    return np.array([number, 1, 2, 3], np.float32)


def vectors(items):
    return [vector(item) for item in items]


def told(items):
    """A model that says how many tokens it read."""
    assert all(item["usage"] is True for item in items)
    return [{"embedding": vector(each["input"]), "tokens": 7} for each in items]


def ask(site=None, **body):
    return (site or Site(vectors)).post(PATH, {"model": "default", **body})


def refused(response, status=400):
    """The error of a response in OpenAI's form."""
    assert response.status == status, response.body
    assert header(response, "content-type") == "application/json"
    (found,) = json.loads(response.body).values()
    assert found.keys() == {"message", "type", "param", "code"}
    return found


@pytest.mark.parametrize(
    ("given", "items"),
    [
        ("one", ["one"]),
        ("", [""]),
        (["one", "four"], ["one", "four"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_each_input_is_an_item(given, items):
    site = Site(vectors)
    found = answer(ask(site, input=given))
    assert [each.items for each in site.seen] == [items]
    assert found["object"] == "list"
    assert found["model"] == "default"
    assert [each["index"] for each in found["data"]] == [*range(len(items))]
    assert {each["object"] for each in found["data"]} == {"embedding"}
    assert [each["embedding"] for each in found["data"]] == [
        vector(each).tolist() for each in items
    ]


@pytest.mark.parametrize(
    "given",
    [None, 5, [], {}, [1, "a"], ["a", [1]], [[]], [["a"]], [1.5], [True], [None], [[1], []]],
)
def test_what_is_no_input_is_refused(given):
    found = refused(ask(input=given))
    assert (found["param"], found["code"]) == ("input", "bad_request")
    assert found["type"] == "invalid_request_error"


def test_base64_is_little_endian_float32():
    (found,) = answer(ask(input="one", encoding_format="base64"))["data"]
    assert base64.b64decode(found["embedding"]) == np.array([3, 1, 2, 3], "<f4").tobytes()


def test_fewer_dimensions_are_of_length_one_again():
    (found,) = answer(ask(input="four", dimensions=2))["data"]
    np.testing.assert_allclose(found["embedding"], np.array([4, 1]) / np.sqrt(17), rtol=1e-6)
    assert answer(ask(input="four", dimensions=4))["data"][0]["embedding"] == [4, 1, 2, 3]
    assert answer(Site(lambda _: [[0.0, 0.0, 1.0]]).post(PATH, {"input": "x", "dimensions": 2}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dimensions", 5),
        ("dimensions", 0),
        ("dimensions", "2"),
        ("dimensions", True),
        ("encoding_format", "int8"),
        ("encoding_format", 1),
        ("model", 5),
    ],
)
def test_a_field_that_makes_no_sense_is_named(field, value):
    found = refused(ask(input="one", **{field: value}))
    assert found["param"] == field
    assert found["message"].startswith(f"{field}: ")


def test_tokens_are_those_that_the_model_tells():
    brokers = snapshot(default={"inputs": BYTES, "outputs": VECTOR})
    site = Site(told, brokers)
    found = answer(ask(site, input=["one", "four"]))
    assert found["usage"] == {"prompt_tokens": 14, "total_tokens": 14}
    assert site.seen[0].items[0] == {"input": "one", "usage": True}
    assert found["data"][1]["embedding"] == [4, 1, 2, 3]
    # Another model may tell them, too; token ids can be counted here; texts can not.
    assert (
        answer(ask(Site(lambda _: [{"embedding": [1.0], "tokens": 3}]), input="one"))["usage"][
            "total_tokens"
        ]
        == 3
    )
    assert answer(ask(input=[[1, 2], [3]]))["usage"]["prompt_tokens"] == 3
    assert answer(ask(input="one two"))["usage"]["prompt_tokens"] == 0


def test_where_there_is_one_model_any_name_means_it_and_the_answer_says_which():
    only = snapshot(minilm={})
    for name in ("minilm", "text-embedding-3-small", None):
        site = Site(vectors, only)
        assert answer(site.post(PATH, {"input": "x", "model": name}))["model"] == "minilm"
        assert site.seen[0].model == "minilm"
    several = Site(vectors, snapshot(default={}, other={}))
    assert answer(several.post(PATH, {"input": "x"}))["model"] == "default"
    assert answer(several.post(PATH, {"input": "x", "model": "other"}))["model"] == "other"
    found = refused(several.post(PATH, {"input": "x", "model": "ada"}), 404)
    assert (found["code"], found["param"]) == ("model_not_found", "model")
    assert "the models are 'default', 'other'" in found["message"]


@pytest.mark.parametrize("output", [{"label": "x"}, "text", 5, [[1.0]], [], None])
def test_a_model_that_gives_no_embeddings_is_named(output):
    found = refused(ask(Site(lambda _: [output]), input="x"))
    assert "model 'default' gives no embeddings" in found["message"]


def test_errors_have_their_status_and_say_whether_to_try_again():
    def busy(_):
        raise Overloaded("full", retry_after=2)

    response = ask(Site(busy), input="x")
    found = refused(response, 429)
    assert (found["type"], header(response, "retry-after")) == ("rate_limit_error", "2")
    assert header(response, "x-should-retry") == "true"

    def broken(_):
        raise PredictError("broken", "ValueError")

    response = ask(Site(broken), input="x")
    assert refused(response, 500)["type"] == "server_error"
    assert header(response, "x-should-retry") == "false"


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (b"", 400, {}),
        (b"[]", 400, {}),
        (b"nonsense", 415, {"content_type": "text/plain"}),
        (b"\x81", 415, {"content_type": "application/msgpack"}),
        (b'{"input": ' + b"[" * 200 + b"]" * 200 + b"}", 400, {}),
    ],
)
def test_bodies_that_are_not_read_are_refused_in_the_same_form(body, status, headers):
    refused(Site(vectors).post(PATH, body, **headers), status)


def test_limits_hold_here_too():
    site = Site(vectors, limits=Limits(max_items=2, max_body=100))
    refused(ask(site, input=["a", "b", "c"]), 413)
    refused(ask(site, input="a" * 100), 413)
    asked = Site(vectors)
    ask(asked, input="x")
    asked.post(PATH, {"input": "x"}, x_request_timeout="2.5", x_priority="7")
    assert [(each.timeout, each.priority) for each in asked.seen] == [(20.0, 0), (2.5, 7)]


def test_models_are_listed_for_both_kinds_of_clients():
    site = Site(brokers=snapshot(one={}, two={}))
    found = answer(site.get("/v1/models"))
    assert found["models"] == ["one", "two"]
    assert found["object"] == "list"
    assert [each["id"] for each in found["data"]] == ["one", "two"]
    for each in (found["data"][0], answer(site.get("/v1/models/one"))):
        assert {each["object"], each["owned_by"]} == {"model", "zstreamer"}
        assert type(each["created"]) is int


def test_a_caller_without_a_key_is_told_so_in_the_same_form():
    site = Site(vectors, guard=Guard(Callers, ()))
    response = ask(site, input="x")
    assert refused(response, 401)["code"] == "unauthenticated"
    assert header(response, "www-authenticate")
    assert not site.seen
