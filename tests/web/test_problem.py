"""Each error's status, and what its problem document says and keeps to itself."""

import json

import pytest

from tests.helpers.web_requests import header
from zstreamer import errors
from zstreamer.web.api import problem
from zstreamer.web.api.problem import Refused

TRACEBACK = """Traceback (most recent call last):
  File "/srv/secret/model.py", line 3, in init_model
    raise OSError("no weights")
OSError: no weights

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/secret/model.py", line 5, in init_model
RuntimeError: cannot start (waited 5 s)
"""


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (errors.BadRequest("x"), 400, "bad-request"),
        (errors.ModelNotFound("x"), 404, "model-not-found"),
        (errors.TooLarge("x"), 413, "too-large"),
        (errors.Overloaded("x"), 429, "overloaded"),
        (errors.Cancelled("x"), 499, "cancelled"),
        (errors.PredictError("x"), 500, "predict-failed"),
        (errors.Unauthorized("x"), 502, "unauthorized"),
        (errors.WorkerLost("x"), 502, "worker-lost"),
        (errors.VersionMismatch("x"), 502, "version-mismatch"),
        (errors.NoWorker("x"), 503, "no-worker"),
        (errors.BrokerUnreachable("x"), 503, "broker-unreachable"),
        (errors.DeadlineExceeded("x"), 504, "deadline-exceeded"),
        (errors.ZStreamerError("x"), 500, "internal"),
        (Refused(404, "x"), 404, "not-found"),
        (Refused(405, "x"), 405, "method-not-allowed"),
        (Refused(418, "x"), 418, "refused"),
    ],
)
def test_each_error_has_its_status_and_a_document_of_its_own(error, status, name):
    response = problem.response(error)
    found = json.loads(response.body)
    assert response.status == found["status"] == status
    assert found["type"] == f"urn:zstreamer:problem:{name}"
    assert "x" in found["detail"]
    assert found["error"] == found["detail"]
    assert found["retryable"] is getattr(error, "retryable", False)
    assert (header(response, "retry-after") is not None) == (status in (429, 503))


def test_every_class_of_error_has_a_status():
    assert set(problem.KINDS) == set(errors.CLASSES.values())


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.01, "1"), (1.2, "2"), (1e9, "3600"), (float("nan"), "3600")]
)
def test_overload_says_when_to_come_back_in_whole_seconds(seconds, text):
    response = problem.response(errors.Overloaded("x", seconds))
    assert header(response, "retry-after") == text
    assert "retry_after" in json.loads(response.body)


@pytest.mark.parametrize(
    ("per_second", "unit", "policy"),
    [
        (500, "items", '"items";q=500;w=1;qu="items"'),
        (5, "items", '"items";q=5;w=1;qu="items"'),
        (2.5, "items", '"items";q=25;w=10;qu="items"'),
        (1 / 3, "items", '"items";q=20;w=60;qu="items"'),
        (0.005, "items", '"items";q=18;w=3600;qu="items"'),
        (1e-3, "items", '"items";q=1;w=1000;qu="items"'),
        (50e6, "bytes", '"bytes";q=50000000;w=1;qu="content-bytes"'),
    ],
)
def test_a_rate_that_is_used_up_is_in_the_headers_of_the_draft(per_second, unit, policy):
    rate = errors.Rate(per_second, unit)
    error = errors.from_wire(errors.to_wire(errors.Overloaded("x", 7199.2, rate)))
    response = problem.response(error)
    assert header(response, "ratelimit-policy") == policy
    assert header(response, "ratelimit") == f'"{unit}";r=0;t=7200'
    assert header(response, "retry-after") == "7200"


@pytest.mark.parametrize(
    "details",
    [{}, {"rate": 5}, {"rate": "5", "unit": "items"}, {"rate": -1, "unit": "items"},
     {"rate": float("nan"), "unit": "items"}, {"rate": 5, "unit": 'x"\r\nSet-Cookie: a'}],
)  # fmt: skip
def test_what_is_no_rate_makes_no_header(details):
    response = problem.response(errors.from_wire([429, "x", {"retry_after": 2, **details}]))
    assert [name for name, _ in response.headers] == ["content-type", "retry-after"]


def test_tracebacks_stay_in_the_cluster_and_their_last_words_do_not():
    error = errors.PredictError("bad input", "ValueError", TRACEBACK)
    error.index = 3
    response = problem.response(error)
    found = json.loads(response.body)
    assert found["detail"] == "ValueError: bad input"
    assert (found["exception"], found["index"]) == ("ValueError", 3)
    assert b"secret" not in response.body

    error = errors.NoWorker(f"no worker for model 'x' could start:\n{TRACEBACK}", final=True)
    response = problem.response(error)
    found = json.loads(response.body)
    assert "no worker for model 'x' could start:" in found["detail"]
    assert "RuntimeError: cannot start" in found["detail"]
    assert found["retryable"] is False
    assert header(response, "retry-after") == "30"
    assert b"secret" not in response.body


def test_of_any_other_exception_only_that_there_was_one_is_told():
    response = problem.response(KeyError("a password"))
    assert response.status == 500
    assert b"password" not in response.body


def test_words_that_cannot_be_written_are_written_as_far_as_they_can():
    found = json.loads(problem.response(errors.PredictError("a \udc80 b", "X\ud800")).body)
    assert found["detail"] == "X?: a ? b"
