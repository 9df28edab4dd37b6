"""Routes, health, the page and the OpenAPI document; what doors may rely on."""

import json
import re
import subprocess
import sys

import pytest
from openapi_spec_validator import validate

from tests.helpers.web_requests import Site, answer, header, problem, snapshot
from zstreamer.errors import BrokerUnreachable, Cancelled, DeadlineExceeded, ZStreamerError
from zstreamer.system.logs import Sparing
from zstreamer.web.api import exchange
from zstreamer.web.api.interface import Interface
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.steps import Predict, Response

GETS = (
    *("/", "/openapi.json", "/healthz", "/readyz", "/metrics", "/v1/models"),
    *("/v1/models/default", "/v2", "/v2/health/live", "/v2/health/ready"),
    *("/v2/models/default", "/v2/models/default/ready"),
)
OPENAI = ("/v1/embeddings", "/v1/rerank")
REPOSITORY = tuple(
    f"/v2/repository/{page}" for page in ("index", "models/default/load", "models/default/unload")
)
POSTS = (
    *("/stream", "/v1/models/default:predict", "/v2/models/default/infer"),
    *(*OPENAI, *REPOSITORY),
)


# Routes


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_a_body_and_with_its_length(path):
    site = Site()
    found = site.ask("GET", path, b"", "s=1")
    bare = site.ask("HEAD", path, b"", "s=1")
    assert (bare.status, bare.headers, bare.body) == (200, found.headers, b"")
    assert found.body
    assert bare.length == len(found.body) or path == "/metrics"  # which changes meanwhile
    assert bare.bare() == bare


@pytest.mark.parametrize("path", sorted({*GETS, *POSTS}))
@pytest.mark.parametrize("method", ["DELETE", "PUT", "OPTIONS", "GET", "POST"])
def test_another_method_is_a_405_that_says_which_to_use(path, method):
    allowed = {*["GET", "HEAD"] * (path in GETS), *["POST"] * (path in POSTS)}
    if method not in allowed:
        response = Site().ask(method, path)
        if path in OPENAI:
            assert json.loads(response.body)["error"]["code"] == "method_not_allowed"
        else:
            problem(response, 405)
        assert response.status == 405
        assert set(header(response, "allow").split(", ")) == allowed


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/models/default", "/v1/models/default:predict"),
        ("/v1/models/default/predict", "/v1/models/default:predict"),
        ("/v1/models/default/", "/v1/models/default:predict"),
        ("/v1/models/default/predict/", "/v1/models/default:predict"),
        ("/v1/models/default/infer", "/v1/models/default:predict"),
        ("/v2/models/default", "/v2/models/default/infer"),
        ("/v2/models/default:predict", "/v2/models/default/infer"),
        ("/v2/models/default/", "/v2/models/default/infer"),
    ],
)
def test_whoever_posts_beside_the_path_is_told_it(path, meant):
    assert problem(Site().ask("POST", path), 405)["detail"].endswith(f"POST to {meant}")
    assert "to run" not in problem(Site().ask("PUT", path), 405)["detail"]


@pytest.mark.parametrize("path", ["/x", "", "*", "/v1", "/v2/health", "//", "/V1/models", "\udcff"])
def test_another_path_is_a_404_that_names_the_document(path):
    assert "/openapi.json" in problem(Site().get(path), 404)["detail"]


def test_a_door_refuses_by_itself_with_the_same_documents():
    interface = Site(limits=Limits(max_body=5)).interface
    for status in (400, 408, 411, 413, 417, 431, 500, 501, 503, 505):
        problem(interface.refuse(status), status)
    assert problem(interface.refuse(413, "send less"), 413)["detail"] == "send less"
    assert problem(interface.refuse(Cancelled("bye")), 499)["detail"] == "bye"
    assert "secret" not in problem(interface.refuse(KeyError("secret")), 500)["detail"]


def test_a_fault_in_a_models_answer_is_a_500_and_no_exception(caplog):
    step = Site().begin("POST", "/v1/models/default:predict", {"instances": [1]})
    response = step.answered(5)  # a door's fault: no list
    assert answer(response) == {"predictions": 5}
    step = Site().begin("GET", "/v1/models")
    assert problem(step.answered(5), 500)
    assert "v1_models" in caplog.text
    step = Site().begin("POST", "/v1/models/default:predict", {"instances": [1]})
    assert problem(step.failed(ZStreamerError()), 500)


def test_a_call_that_fails_is_the_problem_of_its_error():
    step = Site().begin("POST", "/v1/models/default:predict", {"instances": [1]})
    assert isinstance(step, Predict)
    assert problem(step.failed(DeadlineExceeded("late")), 504)["retryable"] is True


# Health


def test_alive_whatever_the_cluster_does():
    site = Site(brokers=BrokerUnreachable("no broker"))
    assert answer(site.get("/healthz"))
    assert answer(site.get("/v2/health/live"))


@pytest.mark.parametrize("path", ["/readyz", "/v2/health/ready"])
def test_ready_is_a_warm_worker_of_the_default_model_or_of_any_where_it_is_unknown(path):
    cold = {"ready": False, "trouble": "Traceback (most recent call last):\nOSError: no weights"}

    def look(default="default", query="", **models):
        return Site(brokers=snapshot(**models), default_model=default).get(path, query=query)

    assert answer(look(default="bert", bert={}, other=cold))["models"] == ["bert"]
    assert answer(look(default="absent", bert={}))["ready"] is True
    for response in (look("bert", bert=cold, other={}), look("absent", bert=cold), look()):
        found = json.loads(response.body)
        assert response.status == 503
        assert found["ready"] is False
        assert found["reason"]
    assert "OSError: no weights" in json.loads(look("bert", bert=cold).body)["reason"]
    assert answer(look("bert", "model=other", bert=cold, other={}))["ready"] is True
    assert look("bert", "x=1&model=o%2Fther", **{"bert": {}, "o/ther": cold}).status == 503
    problem(look("bert", "model=none", bert={}), 404)


def test_not_ready_where_no_broker_answers():
    site = Site(brokers=BrokerUnreachable("no broker answered at tcp://10.0.0.5:7787"))
    response = site.get("/readyz")
    assert "10.0.0.5" in problem(response, 503)["detail"]
    assert header(response, "retry-after") == "1"


@pytest.mark.parametrize(
    "odd", [{}, {"models": 1}, {"models": {1: {}, "a": 1}}, {"models": {"a": {"workers": 3}}}]
)
def test_a_snapshot_of_another_shape_is_read_as_far_as_it_goes(odd):
    site = Site(brokers=odd)
    assert site.get("/readyz").status == 503
    assert answer(site.get("/v1/models"))["models"] in ([], ["a"])


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/models/default:predict/", "POST to /v1/models/default:predict"),
        ("/v1/models/a/b:predict//", "POST to /v1/models/a/b:predict"),
        ("/v2/models/default/infer/", "POST to /v2/models/default/infer"),
        ("/stream/", "it is /stream"),
        ("/healthz/", "it is /healthz"),
    ],
)
def test_a_slash_too_many_is_told(path, meant, method):
    assert problem(Site().ask(method, path), 404)["detail"].endswith(meant)


# For people and programs


def test_the_openapi_document_is_valid_and_names_every_route():
    document = answer(Site().get("/openapi.json"))
    validate(document)
    named = {(path, method) for path, each in document["paths"].items() for method in each}
    paths = {(path.replace("default", "{model}"), "get") for path in GETS}
    assert named == paths | {(path.replace("default", "{model}"), "post") for path in POSTS}


def test_the_page_is_whole_in_itself_and_runs_its_own_script_alone():
    response = Site().get("/")
    text = response.body.decode()
    assert header(response, "content-type") == "text/html; charset=utf-8"
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "innerHTML" not in text
    assert "birthday" not in text
    policy = header(response, "content-security-policy")
    assert "default-src 'none'" in policy
    assert len(re.findall(r"'sha256-[^']{44}'", policy)) == 2


def test_the_page_finds_a_models_own_example():
    site = Site(brokers=snapshot(default={"example": '"Happy birthday to [MASK]."'}))
    assert answer(site.get("/v1/models"))["states"][0]["example"] == '"Happy birthday to [MASK]."'
    assert answer(site.get("/v1/models/default"))["example"] == '"Happy birthday to [MASK]."'


def test_the_interface_brings_neither_gevent_nor_torch_nor_numpy():
    program = (
        "import sys, zstreamer.web.api.interface, zstreamer.web.directory; "
        "print([name for name in ('gevent', 'torch', 'numpy', 'flask') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stdout.decode().strip() == "[]"


def test_without_numpy_text_works_and_numbers_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    site = Site()
    one = {"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    assert answer(site.predict({"a": [b"x".decode()]}))
    found = answer(site.post("/v2/models/default/infer", {"inputs": [one]}))
    assert found["outputs"][0]["data"] == ["a"]
    one |= {"datatype": "FP32", "data": [1.0]}
    refused = problem(site.post("/v2/models/default/infer", {"inputs": [one]}), 501)
    assert "zstreamer[numpy]" in refused["detail"]


# Bounds that make no sense


@pytest.mark.parametrize(
    "settings",
    [
        {"max_body": 0},
        {"max_items": True},
        {"max_nesting": 1000},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": 30, "max_timeout": 20},
        {"max_priority": -1},
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Limits(**settings)


def test_a_default_model_that_cannot_be_one_is_refused():
    with pytest.raises(ValueError, match="name"):
        Interface(default_model="")


# Metrics


def test_metrics_count_requests_items_and_what_is_in_flight():
    site = Site()
    waiting = site.begin("POST", "/v1/models/default:predict", {"instances": [1]})
    site.predict(1, 2, 3)
    site.post("/v1/models/default:predict", b"{")
    site.interface.refuse(413)
    text = site.get("/metrics").body.decode()
    requests, predict = "zstreamer_http_requests_total", 'route="v1_predict"'
    assert f'{requests}{{model="default",{predict},status="200"}} 1.0' in text
    assert f'{requests}{{model="",{predict},status="400"}} 1.0' in text
    assert f'{requests}{{model="",route="refused",status="413"}} 1.0' in text
    assert f'zstreamer_http_items_total{{model="default",{predict}}} 3.0' in text
    assert f'zstreamer_http_request_seconds_count{{model="default",{predict}}} 1.0' in text
    assert "zstreamer_http_in_flight 2.0" in text  # the one that waits, and this one

    response = waiting.failed(Cancelled("the caller disconnected"))
    assert isinstance(response, Response)
    waiting.failed(Cancelled("twice"))
    text = site.get("/metrics").body.decode()
    assert f'{requests}{{model="default",{predict},status="499"}} 1.0' in text
    assert "zstreamer_http_in_flight 1.0" in text
    assert header(site.get("/metrics"), "content-type").startswith("text/plain")


def test_names_that_no_model_has_make_no_series():
    site = Site()
    for number in range(5):
        waiting = site.begin("POST", f"/v1/models/m{number}:predict", {"instances": [1]})
        waiting.failed(BrokerUnreachable("no broker answers"))
    text = site.get("/metrics").body.decode()
    assert 'zstreamer_http_requests_total{model="",route="v1_predict",status="503"} 5.0' in text


def test_metrics_do_not_pile_up_where_nobody_asks():
    site = Site()
    for _ in range(5000):
        site.get("/healthz")
    assert len(site.interface._metrics._notes) < 1100


def test_several_processes_tell_of_all_where_they_share_a_folder(tmp_path):
    program = (
        "from tests.helpers.web_requests import Site; site = Site(); "
        "[site.predict(1) for _ in range(10)]; print(site.get('/metrics').body.decode())"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={
                "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
                "PATH": "",
                "PYTHONPATH": ":".join(sys.path),
            },
            capture_output=True,
            check=True,
        ).stdout.decode()
        for _ in range(2)
    ]
    series = 'zstreamer_http_requests_total{model="default",route="v1_predict",status="200"}'
    assert f"{series} 10.0" in told[0]
    assert f"{series} 20.0" in told[1]
    assert "zstreamer_http_in_flight" in told[1]


def test_the_log_says_once_that_requests_are_not_served_and_why(caplog, monkeypatch):
    monkeypatch.setattr(exchange, "_troubles", Sparing(30.0))

    def fail(items):
        raise BrokerUnreachable("no broker answered at tcp://10.0.0.5:7787")

    for _ in range(3):
        assert (
            Site(fail).ask("POST", "/v1/models/default:predict", b'{"instances": [1]}').status
            == 503
        )
    (line,) = caplog.messages
    assert "tcp://10.0.0.5:7787" in line
