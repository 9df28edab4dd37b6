"""What `POST /v1/models/{model}:predict` and `/stream` ask of a model, and what they answer."""

import base64
import gzip
import json
import math
import zlib
from datetime import datetime, timezone

import numpy as np
import pytest

from tests.helpers.web_requests import Site, answer, header, problem, snapshot
from zstreamer import codec
from zstreamer.errors import BadRequest, ModelNotFound, PredictError, TooLarge
from zstreamer.web.api.limits import Limits

FORM = "application/x-www-form-urlencoded"
MSGPACK = "application/msgpack"
PREDICT = "/v1/models/default:predict"


def upper(items):
    return [item.upper() for item in items]


# JSON


def test_instances_are_items_and_predictions_their_outputs_in_order():
    site = Site(upper)
    response = site.predict("one", "two", content_type="application/json")
    assert answer(response) == {"predictions": ["ONE", "TWO"]}
    assert header(response, "content-type") == "application/json"
    (call,) = site.seen
    assert (call.items, call.model) == (["one", "two"], "default")
    assert (call.timeout, call.priority, call.return_exceptions) == (20.0, 0, False)


@pytest.mark.parametrize("model", ["bert", "a/b", "ünï ☃", "x:predict", "x" * 255, "versions/1"])
def test_a_model_may_be_called_anything(model):
    site = Site()
    answer(site.post(f"/v1/models/{model}:predict", {"instances": [1]}))
    assert site.seen[0].model == model


def test_any_json_can_be_an_instance():
    site = Site()
    odd = [None, True, 1, -(2**63), 2**64 - 1, 1.5, "ü☃\U0001f600", [], {}, {"a": [{"b": None}]}]
    assert answer(site.predict(*odd)) == {"predictions": odd}
    assert site.seen[0].items == odd


def test_b64_stands_for_bytes_both_ways():
    site = Site()
    image = {"b64": base64.b64encode(b"\x89PNG\xff").decode()}
    found = answer(site.predict(image, {"image": image, "more": 1}, {"b64": "x", "c": 1}, "b64"))
    assert site.seen[0].items[:2] == [b"\x89PNG\xff", {"image": b"\x89PNG\xff", "more": 1}]
    assert found["predictions"][0] == image
    assert found["predictions"][2:] == [{"b64": "x", "c": 1}, "b64"]


def test_curl_without_a_content_type_of_its_own_works():
    assert answer(Site().predict("x", content_type=FORM)) == {"predictions": ["x"]}
    assert answer(Site().predict("x")) == {"predictions": ["x"]}
    body = b'\n {"instances": ["x"]}'
    assert answer(Site().post(PREDICT, body)) == {"predictions": ["x"]}


def test_arrays_and_all_that_a_model_returns_are_written_as_json():
    outputs = [
        np.arange(6, dtype="f4").reshape(2, 3),
        np.arange(6).reshape(2, 3).T,
        np.array([1.5], "f2"),
        np.array(["a", "bc"]),
        np.array([True]),
        np.array([0.25], ">f4"),
        np.float32(0.5),
        np.int64(3),
        {"deep": [np.zeros(1, "u1")], 7: "key"},
        b"\xff",
        math.nan,
        datetime(2020, 1, 2, tzinfo=timezone.utc),
        ("tuple",),
    ]
    found = answer(Site(lambda _: outputs).predict("x"))["predictions"]
    assert found == [
        [[0, 1, 2], [3, 4, 5]],
        [[0, 3], [1, 4], [2, 5]],
        [1.5],
        ["a", "bc"],
        [True],
        [0.25],
        0.5,
        3,
        {"deep": [[0]], "7": "key"},
        {"b64": "/w=="},
        None,
        "2020-01-02T00:00:00+00:00",
        ["tuple"],
    ]


@pytest.mark.parametrize("output", [1j, np.array([1j]), {b"x": 1}, object(), "\ud800", 2**70])
def test_an_output_that_json_cannot_hold_is_a_500_that_names_the_fix(output):
    found = problem(Site(lambda _: [output]).predict("x"), 500)
    assert "application/msgpack" in found["detail"]


def test_an_output_that_json_cannot_hold_is_the_models_fault_and_named():
    found = problem(Site(lambda _: [1, {"a": [{b"x": 1}]}]).predict("x", "y"), 500)
    assert found["type"] == "urn:zstreamer:problem:predict-failed"
    assert found["exception"] == "BadOutput"
    assert found["index"] == 1
    assert "the model's output for item 1 cannot be written as JSON" in found["detail"]
    assert "the key b'x' is bytes" in found["detail"]


def test_numbers_of_numpy_as_keys_are_like_pythons_own():
    keys = [np.int64(3), np.uint8(4), np.float64(0.5), np.float32(0.25), np.bool_(True)]
    outputs = [{key: [{key: np.float32(0.5)}]} for key in keys]
    found = answer(Site(lambda _: outputs).predict(*"abcde"))["predictions"]
    plain = ["3", "4", "0.5", "0.25", "true"]
    assert found == [{key: [{key: 0.5}]} for key in plain]


@pytest.mark.parametrize(("kind", "status"), [(BadRequest, 400), (TooLarge, 413)])
def test_an_item_that_the_model_refuses_has_the_status_of_the_refusal(kind, status):
    class Own(kind):
        """Of the user's."""

    for error in (kind("not with me"), Own("not with me")):
        error.index = 1

        def model(items, error=error):
            raise error

        found = problem(Site(model).predict("x", "y"), status)
        assert (found["detail"], found["index"]) == ("not with me", 1)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"instances": [1]', "not JSON"),
        (b'{"instances": [1]} x', "not JSON"),
        (b'{"instances": [NaN]}', "not JSON"),
        (b'{"instances": [Infinity]}', "not JSON"),
        (b'{"instances": [1e999]}', "not JSON"),
        (b'{"instances": ["\\ud800"]}', "not JSON"),
        (b'{"instances": ["\xff"]}', "not JSON"),
        (b'{"instances": ["\xed\xa0\x80"]}', "not JSON"),
        (b'\xef\xbb\xbf{"instances": [1]}', "not JSON"),
        (b"[1, 2]", "the body is a list"),
        (b'"text"', "the body is a str"),
        (b"null", "the body is a NoneType"),
        (b"{}", "no instances"),
        (b'{"inputs": [1]}', "inputs"),
        (b'{"instances": []}', "no instances"),
        (b'{"instances": null}', "instances is a NoneType"),
        (b'{"instances": "text"}', "instances is a str"),
        (b'{"instances": {"a": [1]}}', "instances is a dict"),
        (b'{"instances": [1], "instances": [2]}', "more than once"),
        (b'{"instances": [18446744073709551616]}', "64 bits"),
        (b'{"instances": [-9223372036854775809]}', "64 bits"),
        (b'{"instances": [%s]}' % (b"9" * 5000), "not JSON"),
        (b'{"instances": [{"b64": "not base64!"}]}', "base64"),
        (b'{"instances": [{"b64": "\xc3\xbc"}]}', "base64"),
    ],
)
def test_a_body_that_is_wrong_is_a_400_that_says_how(body, words):
    found = problem(Site().post(PREDICT, body), 400)
    assert words in found["detail"]
    assert found["retryable"] is False


def test_digits_in_texts_and_fractions_are_no_huge_integers():
    texts = ["12345678901234567890123", "-" * 30, "a 99999999999999999999 b"]
    numbers = [0.12345678901234567890123, 1e-22, 12345678901234567890.5, -(2**63), 2**64 - 1]
    assert answer(Site().predict(*texts, *numbers))["predictions"] == [*texts, *numbers]


def test_nesting_has_a_limit_wherever_the_brackets_are():
    def nested(levels):
        return b'{"instances": %s%s}' % (b"[" * levels, b"]" * levels)

    site = Site(limits=Limits(max_nesting=20))
    assert answer(site.post(PREDICT, nested(19)))
    assert "20 levels" in problem(site.post(PREDICT, nested(20)), 400)["detail"]
    assert "nested" in problem(site.post(PREDICT, nested(900)), 400)["detail"]
    assert problem(site.post(PREDICT, nested(5000)), 400)
    assert answer(site.predict("[" * 1000, "[MASK]" * 99, *([[1]] * 99)))
    hidden = b'{"instances": [' + b'["]",' * 50 + b"1" + b',"["]' * 50 + b"]}"
    assert "nested" in problem(site.post(PREDICT, hidden), 400)["detail"]
    objects = b'{"instances": [' + b'{"a":' * 50 + b"1" + b"}" * 50 + b"]}"
    assert "nested" in problem(site.post(PREDICT, objects), 400)["detail"]


# Errors in their places


def test_errors_stand_in_their_places_where_the_query_asks_for_it():
    bad = PredictError("no [MASK]", "ValueError", "Traceback (most recent call last): secret")
    bad.index = 1
    site = Site(lambda _: ["good", bad])
    response = site.predict("x", "y", query="errors=inline")
    good, found = answer(response)["predictions"]
    assert site.seen[0].return_exceptions is True
    assert good == "good"
    assert found["error"]["status"] == 500
    assert found["error"]["index"] == 1
    assert found["error"]["exception"] == "ValueError"
    assert "no [MASK]" in found["error"]["detail"]
    assert b"secret" not in response.body

    packed = site.predict("x", "y", query="errors=inline", accept=MSGPACK)
    assert codec.decode(packed.body) == {"predictions": ["good", found]}


def test_without_asking_the_first_error_is_the_answer():
    site = Site()
    assert answer(site.predict("x", query="a=b&errors=raise&errors"))
    assert site.seen[0].return_exceptions is False
    assert "errors" in problem(site.predict("x", query="errors=yes"), 400)["detail"]


# msgpack


def test_msgpack_carries_arrays_and_is_answered_in_kind():
    site = Site()
    image = np.arange(12, dtype="f4").reshape(3, 4)
    body = codec.encode({"instances": [image, {"a": image}, b"\xff", "text"]})
    response = site.post(PREDICT, body, content_type="application/msgpack; v=1")
    assert header(response, "content-type") == MSGPACK
    found = codec.decode(response.body)["predictions"]
    np.testing.assert_array_equal(found[0], image)
    assert found[0].dtype == image.dtype
    assert found[2:] == [b"\xff", "text"]


def test_an_array_of_rows_is_as_many_instances():
    site = Site(lambda items: [float(item.sum()) for item in items])
    body = codec.encode({"instances": np.ones((3, 4), "f4")})
    response = site.post(PREDICT, body, content_type=MSGPACK, accept="application/json")
    assert answer(response) == {"predictions": [4.0, 4.0, 4.0]}
    assert [item.shape for item in site.seen[0].items] == [(4,)] * 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "cannot be decoded"),
        (b"\xc1", "cannot be decoded"),
        (b"\x93\x01", "cannot be decoded"),
        (b"\xdf\xff\xff\xff\xff", "cannot be decoded"),
        (b"\x81\xa9instances\xc7\x02\x63ab", "unknown extension"),
        (b"\x81\xa9instances\xc7\x02\x01ab", "cannot be decoded"),
        (b"\x81\xa9instances\x90", "no instances"),
        (b"\x81\xa9instances\xc0", "NoneType"),
        (b"\x81\x01\x02", "no instances"),
        (b"\x01", "the body is a int"),
        (b"\x91" * 300 + b"\xc0", "nested"),
        (b"\x91" * 5000 + b"\xc0", "cannot be decoded"),
        (codec.encode({"instances": np.array(1.0)}), "instances is a"),
        (codec.encode({"instances": np.empty((0, 3))}), "no instances"),
    ],
)
def test_msgpack_that_is_wrong_is_a_400_that_says_how(body, words):
    assert words in problem(Site().post(PREDICT, body, content_type=MSGPACK), 400)["detail"]


# Forms, as older examples send them


def test_the_fields_s_of_a_form_are_items_and_a_list_is_the_answer():
    site = Site(upper)
    body = b"s=Happy+birthday%20to+%5BMASK%5D.&t=1&s=%C3%BC&s=&ss=no"
    response = site.post("/stream", body, content_type=f"{FORM}; charset=utf-8")
    assert answer(response) == ["HAPPY BIRTHDAY TO [MASK].", "Ü", ""]
    assert site.seen[0].model == "default"


def test_stream_takes_the_default_model():
    site = Site(upper, default_model="bert")
    assert answer(site.post("/stream", b"s=a")) == ["A"]
    assert {call.model for call in site.seen} == {"bert"}


def test_a_form_that_is_wrong_is_a_400_and_another_type_a_415():
    site = Site()
    assert "field s" in problem(site.post("/stream", b"t=1"), 400)["detail"]
    assert "UTF-8" in problem(site.post("/stream", b"s=%ff"), 400)["detail"]
    assert "UTF-8" in problem(site.post("/stream", b"s=\xff"), 400)["detail"]
    found = problem(site.post("/stream", b"{}", content_type="application/json"), 415)
    assert "/v1/models/default:predict" in found["detail"]


# What the headers say


def test_accept_decides_between_json_and_msgpack():
    def kind(accept, **more):
        response = Site().predict("x", accept=accept, **more)
        return response.status if response.status != 200 else header(response, "content-type")

    assert kind("application/msgpack") == MSGPACK
    assert kind("Application/MsgPack;q=0.5, text/html") == MSGPACK
    assert kind("application/msgpack, application/json") == "application/json"
    assert kind("*/*") == kind("application/*") == "application/json"
    assert kind("text/html, */*;q=0.8") == "application/json"
    assert kind("text/html") == kind("") == 406
    assert kind(";;q=,=,q") == 406


def test_timeout_and_priority_come_from_headers():
    site = Site(limits=Limits(timeout=5, max_timeout=30))
    site.predict("x", x_request_timeout="0.5", x_priority="-7")
    site.predict("x", x_request_timeout="1e9", x_priority="+100")
    site.predict("x")
    assert [(c.timeout, c.priority) for c in site.seen] == [(0.5, -7), (30, 100), (5, 0)]


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "nan", "inf", "-inf", "1s", "1e999", "٣x"])
def test_a_timeout_that_is_none_is_a_400(text):
    found = problem(Site().predict("x", x_request_timeout=text), 400)
    assert "X-Request-Timeout" in found["detail"]


@pytest.mark.parametrize("text", ["", "x", "1.5", "101", "-101", "9" * 5000, "1e2"])
def test_a_priority_that_is_none_is_a_400(text):
    assert "between -100 and 100" in problem(Site().predict("x", x_priority=text), 400)["detail"]


def test_another_content_type_is_a_415_that_names_those_that_are_read():
    response = Site().post(PREDICT, b"<xml>", content_type="text/xml")
    assert "application/msgpack" in problem(response, 415)["detail"]
    assert "application/json" in header(response, "accept")


# Compressed bodies


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("Deflate", zlib.compress)],
)
def test_a_compressed_body_is_read(coding, compress):
    body = compress(b'{"instances": ["x"]}')
    assert answer(Site().post(PREDICT, body, content_encoding=coding)) == {"predictions": ["x"]}


def test_a_compressed_body_may_not_grow_beyond_the_limit():
    site = Site(limits=Limits(max_body=100_000))
    bomb = gzip.compress(b'{"instances": ["' + b"x" * 100_000 + b'"]}')
    assert len(bomb) < 1000
    assert (
        "100000 bytes" in problem(site.post(PREDICT, bomb, content_encoding="gzip"), 413)["detail"]
    )


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        b"\x1f\x8b",
        gzip.compress(b"{}")[:-1],
        gzip.compress(b"{}") * 2,
        zlib.compress(b"") + b"x",
    ],
)
def test_a_body_that_is_not_one_whole_stream_is_a_400(body):
    assert "gzip" in problem(Site().post(PREDICT, body, content_encoding="gzip"), 400)["detail"]


def test_an_unknown_compression_is_a_415():
    response = Site().post(PREDICT, b"x", content_encoding="br")
    assert header(response, "accept-encoding") == "gzip, deflate"
    problem(response, 415)


# Limits


def test_too_many_items_and_too_large_a_body_are_413():
    site = Site(limits=Limits(max_items=3, max_body=100))
    assert answer(site.predict(1, 2, 3))
    assert "more than 3" in problem(site.predict(1, 2, 3, 4), 413)["detail"]
    assert "100 bytes" in problem(site.predict("x" * 100), 413)["detail"]
    body = codec.encode({"instances": np.zeros((4, 1))})
    problem(site.post(PREDICT, body, content_type=MSGPACK), 413)
    problem(site.post("/stream", b"s=1&s=2&s=3&s=4"), 413)


@pytest.mark.parametrize("name", ["", "x" * 256, "bad\udcff"])
def test_a_name_that_no_model_can_have_is_a_400(name):
    assert (
        "name"
        in problem(Site().post(f"/v1/models/{name}:predict", {"instances": [1]}), 400)["detail"]
    )


def test_what_the_client_finds_wrong_is_told():
    def refuse(items):
        error = BadRequest("items[1] is nested deeper than 200 levels")
        error.index = 1
        raise error

    assert problem(Site(refuse).predict(1, 2), 400)["index"] == 1


def test_an_unknown_model_is_a_404_that_names_those_there_are():
    def refuse(items):
        raise ModelNotFound("no model 'x'", ["bert", "resnet"])

    assert problem(Site(refuse).predict(1), 404)["models"] == ["bert", "resnet"]


# Which models there are


def test_models_are_listed_as_kserve_does_with_the_state_of_each():
    trouble = "Traceback (most recent call last):\n  File secret\nOSError: no weights"
    site = Site(brokers=snapshot(b={}, a={"ready": False, "workers": [], "trouble": trouble}))
    found = answer(site.get("/v1/models"))
    assert found["models"] == ["a", "b"]
    a, b = found["states"]
    assert (a["name"], a["ready"], a["workers"], a["trouble"]) == (
        "a",
        False,
        0,
        "OSError: no weights",
    )
    assert (b["name"], b["ready"], b["workers"], b["trouble"]) == ("b", True, 1, "")
    alone = answer(site.get("/v1/models/b"))
    assert {**alone, **b} == alone
    assert "'a', 'b'" in problem(site.get("/v1/models/c"), 404)["detail"]
    assert json.loads(site.get("/v1/models").body) == found
