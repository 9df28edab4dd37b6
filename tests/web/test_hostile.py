"""Whatever comes in, the interface raises nothing, and says with a 4xx what is wrong."""

import gzip
import json
import logging

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from tests.helpers.web_requests import Site, snapshot
from zstreamer import Tensor, codec
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.steps import Look, Predict, Request, Response

DECLARED = {
    "inputs": [Tensor("a", "FP32", [2]).plain(), Tensor("b").plain()],
    "outputs": [Tensor("b").plain()],
}

CLEAN = {200, 400, 404, 405, 406, 413, 415, 501}
"""What a hostile request may be answered with; 5xx are for faults of this side."""


def tensor(name, datatype, shape, **more):
    return {"name": name, "datatype": datatype, "shape": shape, **more}


HEAD = json.dumps(
    {
        "id": "1",
        "inputs": [
            tensor("a", "FP32", [2, 2], parameters={"binary_data_size": 16}),
            tensor("b", "BYTES", [2], parameters={"binary_data_size": 10}),
        ],
        "outputs": [{"name": "b", "parameters": {"binary_data": True}}],
    }
).encode()
TAIL = np.ones(4, "f4").tobytes() + b"\1\0\0\0x\1\0\0\0y"
LISTS = json.dumps(
    {
        "inputs": [
            tensor("a", "FP32", [2, 2], data=[[1, 2], [3, 4]]),
            tensor("b", "BYTES", [2], data=["x", "y"]),
        ]
    }
).encode()
JSON = b'{"instances": ["\xc3\xbc", 1.5, null, {"b64": "aGk="}, [[1, 2], {"a": true}]]}'
PACKED = codec.encode({"instances": [np.ones((2, 2), "f4"), "x", {"a": [1, None]}]})
PLAIN = json.dumps({"inputs": [tensor("x", "INT64", [2], data=[1, 2])]}).encode()
UPLOAD = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\nhi\r\n--x--\r\n'
FORM = "application/x-www-form-urlencoded"

VALID = [
    ("/v1/models/default:predict", JSON, {}),
    ("/v1/models/default:predict", gzip.compress(JSON), {"content-encoding": "gzip"}),
    ("/v1/models/default:predict", PACKED, {"content-type": "application/msgpack"}),
    ("/stream", b"s=%C3%BC&s=a+b", {"content-type": FORM}),
    ("/stream", b"s=%C3%BC&s=a+b&t=1", {}),
    ("/v2/models/tensors/infer", HEAD + TAIL, {"inference-header-content-length": str(len(HEAD))}),
    ("/v2/models/tensors/infer", LISTS, {}),
    ("/v2/models/default/infer", PLAIN, {}),
    ("/v1/models/default:predict", UPLOAD, {"content-type": "multipart/form-data; boundary=x"}),
    ("/v1/models/default:predict", b"\x89PNG", {"content-type": "image/png"}),
    ("/v1/embeddings", b'{"model": "numbers", "input": [[1, 2], [3]]}', {}),
    ("/v1/rerank", b'{"model": "sizes", "query": "q", "documents": ["a", {"text": "b"}]}', {}),
]

HEADERS = (
    *("content-type", "content-encoding", "accept", "x-request-timeout", "x-priority"),
    "inference-header-content-length",
)

cuts = some.tuples(some.integers(0, 400), some.integers(0, 40), some.binary(max_size=20))
words = some.text() | some.sampled_from(
    ["gzip", "deflate", "application/json", "application/msgpack", "*/*;q=0", "1", "-1", "1e9"]
)
odd_json = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats()
    | some.text(max_size=8)
    | some.sampled_from(["FP32", "BYTES", "BOOL", "UINT64", "a", "b"]),
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(
            some.sampled_from(
                [
                    *("inputs", "outputs", "instances", "name", "shape", "datatype", "data", "id"),
                    *("b64", "parameters", "binary_data_size", "binary_data", "timeout"),
                    *("model", "input", "dimensions", "query", "documents", "top_n", "text"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@pytest.fixture(scope="module")
def web():
    """A site that answers with what it is asked; a fault of its own would be logged."""

    def model(items):
        if all(type(item) is list and item[:1] == ["q"] for item in items):
            return [len(item) for item in items]  # a query with each of its documents
        return [item.get("b", "?") if type(item) is dict else item for item in items]

    logging.getLogger("zstreamer.web").setLevel(logging.CRITICAL)
    brokers = snapshot(default={}, tensors=DECLARED, numbers={}, sizes={})
    yield Site(model, brokers=brokers, limits=Limits(max_body=4096, max_items=50))
    logging.getLogger("zstreamer.web").setLevel(logging.NOTSET)


def check(web, method, path, query, headers, body):
    """The status of the response, which must be whole and clean."""
    step = web.interface.begin(Request(method, path, query, headers.get, body))
    while not isinstance(step, Response):
        assert isinstance(step, Look | Predict)
        step = web.settle(step)
    assert step.status in CLEAN, step.body
    assert all(name == name.lower() and "\n" not in value for name, value in step.headers)
    if step.status != 200 and method != "HEAD":
        found = json.loads(step.body)
        assert found.get("detail") or found["error"]["message"]
    return step.status


@pytest.mark.parametrize(("path", "body", "headers"), VALID)
def test_the_requests_that_are_mutated_below_are_good(web, path, body, headers):
    assert check(web, "POST", path, "", headers, body) == 200


@settings(max_examples=300, deadline=None)
@given(some.sampled_from(VALID), some.lists(cuts, min_size=1, max_size=3))
def test_a_good_request_with_changed_bytes_is_answered_cleanly(web, request_, changes):
    path, body, headers = request_
    for at, length, new in changes:
        body = body[:at] + new + body[at + length :]
    check(web, "POST", path, "", headers, body)


@settings(max_examples=200, deadline=None)
@given(
    some.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "ÜBER"]) | some.text(max_size=9),
    some.sampled_from([path for path, _, _ in VALID]) | some.text(),
    some.text(),
    some.dictionaries(some.sampled_from(HEADERS), words),
    some.binary() | some.sampled_from([body for _, body, _ in VALID]),
)
@example("GET", "/v1/models/\ud800", "", {}, b"")
@example("GET", "/\ud800", "", {}, b"")
@example("POST", "/stream", "", {"content-type": "\ud800\n"}, b"s=1")
@example("GET", "/readyz", "model=\ud800&model=%ff", {}, b"")
@example("POST", "/v2/models//infer", "", {}, b"{}")
@example("POST", "/v1/models/:predict", "", {}, b"{}")
def test_anything_at_all_is_answered_cleanly(web, method, path, query, headers, body):
    check(web, method, path, query, headers, body)


@settings(max_examples=150, deadline=None)
@given(some.sampled_from([path for path, _, _ in VALID]), odd_json)
def test_json_of_any_shape_is_answered_cleanly(web, path, value):
    check(web, "POST", path, "", {"content-type": "application/json"}, json.dumps(value).encode())


@settings(max_examples=150, deadline=None)
@given(
    some.fixed_dictionaries(
        {},
        optional={
            "name": some.sampled_from(["a", "b", "c"]) | odd_json,
            "datatype": some.sampled_from(["FP32", "BYTES", "BOOL", "INT8", "UINT64"]) | odd_json,
            "shape": some.lists(some.integers(-1, 3), max_size=3) | odd_json,
            "data": some.lists(some.integers(0, 3) | some.text(max_size=2), max_size=6) | odd_json,
            "parameters": some.dictionaries(
                some.sampled_from(["binary_data_size", "shared_memory_region"]),
                some.integers(-1, 20),
            ),
        },
    ),
    some.binary(max_size=30),
    some.integers(-3, 3),
    some.sampled_from(["default", "tensors"]),
)
def test_tensors_of_any_kind_are_answered_cleanly(web, tensor, tail, off, model):
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(head) + off)} if tail else {}
    check(web, "POST", f"/v2/models/{model}/infer", "", headers, head + tail)


def test_a_header_that_cannot_be_read_is_a_500_and_no_exception(web):
    def broken(name):
        raise UnicodeDecodeError("latin-1", b"", 0, 1, "broken")

    step = web.interface.begin(Request("POST", "/stream", "", broken, b"s=1"))
    assert isinstance(step, Response)
    assert step.status == 500
    assert b"broken" not in step.body
