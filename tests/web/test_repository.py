"""The model repository routes without a server: who may give orders, and what the index says."""

import pytest

from tests.helpers.leaks import secret
from tests.helpers.web_requests import Site, answer, header, problem, snapshot
from zstreamer.errors import BrokerUnreachable, ModelNotFound
from zstreamer.keys.bearer import Callers
from zstreamer.web.api.guard import Guard
from zstreamer.web.api.snapshot import merged
from zstreamer.web.api.steps import Look, Order, Response

TOKEN = secret("operators")
INDEX = "/v2/repository/index"
LOAD = "/v2/repository/models/bert/load"
UNLOAD = "/v2/repository/models/bert/unload"
SAID = {"models": ["bert@2"], "orders": {"a1": 3}}


def brokers(*offers, orders=3, models=()):
    found = snapshot(**dict(models))
    offered = [list(each) for each in offers]
    host = {"id": "a1", "host": "a", "pid": 1, "orders": orders, "offers": offered}
    found["broker"]["repository"] = [host]
    return found


def site(known=None, **settings):
    return Site(brokers=known, operator_token=TOKEN, **settings)


def ordered(path=LOAD, body=b"", said=SAID, **headers):
    """The step after an order was taken: the first look."""
    step = site().begin("POST", path, body, authorization=f"Bearer {TOKEN}", **headers)
    assert isinstance(step, Order)
    step = step.answered(said)
    assert isinstance(step, Look)
    assert step.wait > 0
    return step


def states(known):
    rows = answer(site(known).post(INDEX, b""))
    return [(row["name"], row["version"], row["state"], row["reason"]) for row in rows]


def test_the_index_has_what_hosts_offer_and_what_workers_serve():
    models = {
        "bert": {"workers": [], "versions": {"2": {}}},
        "bert@2": {},
        "weak": {"ready": False, "trouble": "Traceback (most recent call last):\n x\nOSError: no"},
        "plain": {},
        "stable": {"alias": "bert@2"},
        "starts": {"ready": False},
    }
    known = brokers(
        ("bert", "10", "unloaded", ""),
        ("bert", "2", "loaded", ""),
        ("weak", "", "failed", "exit code 4"),
        ("odd", "", "unloaded", "odd/model.toml has no target"),
        ("starts", "", "loaded", ""),
        models=models,
    )
    assert states(known) == [
        ("bert", "2", "READY", ""),
        ("bert", "10", "UNAVAILABLE", "unloaded"),
        ("odd", "1", "UNAVAILABLE", "odd/model.toml has no target"),
        ("plain", "1", "READY", ""),
        ("starts", "1", "LOADING", ""),
        ("weak", "1", "UNAVAILABLE", "OSError: no"),
    ]
    ready = answer(site(known).post(INDEX, {"ready": True}))
    assert [row["name"] for row in ready] == ["bert", "plain"]


def test_the_index_of_a_cluster_without_repositories_is_what_is_served():
    assert states(snapshot(default={})) == [("default", "1", "READY", "")]
    assert states(snapshot()) == []


@pytest.mark.parametrize(
    "hosts",
    [5, {}, [5], [{}], [{"offers": 5}], [{"offers": [5, ["x"], [1, 2, 3, 4]], "orders": "x"}]],
)
def test_a_snapshot_with_nonsense_of_hosts_is_read_with_care(hosts):
    known = snapshot(default={})
    known["broker"]["repository"] = hosts
    assert states(known) == [("default", "1", "READY", "")]


def test_what_two_brokers_know_of_one_host_is_told_as_of_the_later_report():
    old = brokers(("bert", "2", "unloaded", ""), orders=2)
    new = brokers(("bert", "2", "loaded", ""), orders=3)
    for pair in ([old, new], [new, old], [snapshot(), new]):
        assert states(merged(pair)) == [("bert", "2", "LOADING", "")]


def test_a_load_is_watched_until_a_worker_is_warm():
    step = ordered()
    stale = brokers(("bert", "2", "failed", "of before"), orders=2)
    step = step.answered(stale)
    assert isinstance(step, Look)
    step = step.answered(brokers(("bert", "2", "loaded", "")))
    assert isinstance(step, Look)
    ready = brokers(("bert", "2", "loaded", ""), models={"bert": {}, "bert@2": {}})
    found = answer(step.answered(ready))
    row = {"name": "bert", "version": "2", "state": "READY", "reason": ""}
    assert found == {"name": "bert", "models": [row]}


def test_a_load_that_fails_says_why():
    failed = brokers(("bert", "2", "failed", "exit code 4"))
    assert "could not be loaded: exit code 4" in problem(ordered().answered(failed), 503)["detail"]


def test_an_unload_is_watched_until_no_host_has_workers_of_it():
    step = ordered(UNLOAD)
    for state in ("loaded", "unloading"):
        step = step.answered(brokers(("bert", "2", state, ""), models={"bert@2": {}}))
        assert isinstance(step, Look)
    assert answer(step.answered(brokers(("bert", "2", "unloaded", ""))))["name"] == "bert"


def test_the_time_of_a_request_bounds_the_wait():
    step = ordered(x_request_timeout="0.000001")
    found = problem(step.answered(brokers(("bert", "2", "loaded", ""))), 504)
    assert "goes on: bert@2" in found["detail"]


def test_a_version_stands_in_the_path_or_in_the_name():
    for path in ("bert/versions/2", "bert@2"):
        path = f"/v2/repository/models/{path}/load"
        step = site().begin("POST", path, b"", authorization=f"Bearer {TOKEN}")
        assert (step.action, step.name) == ("load", "bert@2")


def test_an_order_that_nobody_takes_is_the_error_of_the_brokers():
    for error, status in ((ModelNotFound("no model"), 404), (BrokerUnreachable("no broker"), 503)):
        step = site().begin("POST", LOAD, b"", authorization=f"Bearer {TOKEN}")
        assert problem(step.failed(error), status)["detail"] == str(error)


def test_orders_take_the_operators_token_and_reading_takes_none():
    for path in (LOAD, UNLOAD):
        assert "--operator-token" in problem(Site().post(path, b""), 403)["detail"]
        for said in ({}, {"authorization": TOKEN}, {"authorization": "Bearer ü\udcff"}):
            response = site().post(path, b"", **said)
            problem(response, 401)
            assert "Bearer" in header(response, "www-authenticate")
    answer(Site().post(INDEX, b""))


def test_where_callers_need_a_token_an_operator_needs_no_other():
    guard = Guard(lambda: Callers({}), ())
    web = site(snapshot(default={}), guard=guard)
    operator = {"authorization": f"Bearer {TOKEN}"}
    problem(web.post(INDEX, b""), 401)
    answer(web.post(INDEX, b"", **operator))
    assert isinstance(web.begin("POST", LOAD, b"", **operator), Order)
    problem(web.post("/v1/models/default:predict", {"instances": [1]}, **operator), 401)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (LOAD, b"[1]", 400),
        (LOAD, b"{", 400),
        (LOAD, {"parameters": 5}, 400),
        (LOAD, {"parameters": {"config": "{}"}}, 501),
        (LOAD, {"parameters": {"file:1/model.onnx": "AA=="}}, 501),
        (UNLOAD, {"parameters": {"unload_dependents": True}}, 501),
        (INDEX, {"ready": "yes"}, 400),
        ("/v2/repository/models//load", b"", 400),
        ("/v2/repository/models/load", b"", 400),
        ("/v2/repository/models/bert/reload", b"", 404),
        ("/v2/repository/other/bert/load", b"", 404),
        ("/v2/repository/", b"", 404),
    ],
)
def test_what_is_not_supported_or_makes_no_sense_is_refused(path, body, status):
    response = site().post(path, body, authorization=f"Bearer {TOKEN}")
    assert isinstance(response, Response)
    problem(response, status)


def test_what_tritons_client_sends_is_taken():
    for body in ({}, {"parameters": {"unload_dependents": False}}):
        step = site().begin("POST", UNLOAD, body, authorization=f"Bearer {TOKEN}")
        assert isinstance(step, Order)


def test_a_broker_that_is_away_for_a_moment_ends_no_wait():
    step = ordered()
    for _ in range(3):
        step = step.failed(BrokerUnreachable("no broker"))
        assert isinstance(step, Look)
    step = step.answered(snapshot())  # it is back, the host is not yet
    assert isinstance(step, Look)
    ready = brokers(("bert", "2", "loaded", ""), models={"bert": {}, "bert@2": {}})
    assert answer(step.answered(ready))["models"][0]["state"] == "READY"


def test_hosts_that_refuse_are_told_of():
    said = {**SAID, "refused": ["num is 'many'"], "silent": ["no broker at b"]}
    ready = brokers(("bert", "2", "loaded", ""), models={"bert": {}, "bert@2": {}})
    found = answer(ordered(said=said).answered(ready))
    assert found["refused"] == ["num is 'many'", "no broker at b"]
    ended = brokers(("bert", "2", "unloaded", ""))
    assert "num is 'many'" in problem(ordered(UNLOAD, said=said).answered(ended), 503)["detail"]
    said = {**SAID, "silent": ["no broker at b"]}
    assert answer(ordered(UNLOAD, said=said).answered(ended))["refused"] == ["no broker at b"]


def test_a_broker_of_before_names_a_host_by_its_place():
    known = brokers(("bert", "2", "loaded", ""), models={"bert": {}, "bert@2": {}})
    del known["broker"]["repository"][0]["id"]
    said = {"models": ["bert@2"], "orders": {"a:1": 3}}
    assert answer(ordered(said=said).answered(known))["name"] == "bert"


def test_a_version_in_the_path_that_is_none_is_the_callers_mistake():
    for version in ("v" * 5000, "a b"):
        path = f"/v2/repository/models/bert/versions/{version}/load"
        step = site().begin("POST", path, b"", authorization=f"Bearer {TOKEN}")
        assert "version" in problem(step, 400)["detail"]
