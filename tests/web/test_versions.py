"""Versions of models in the paths of HTTP requests, without a server."""

import pytest

from tests.helpers.web_requests import Site, answer, problem, snapshot
from zstreamer.web.api.steps import Look

ONE = {"name": "x", "datatype": "INT64", "shape": [1], "data": [7]}


def served(**more):
    """Two versions of bert, one model without versions, and two aliases."""
    models = {"bert": {"workers": []}, "bert@1": {}, "bert@10": {}, "bert@9": {}, "plain": {}}
    models["stable"] = {"alias": "bert@9", "workers": []}
    models["other"] = {"alias": "plain", "workers": []}
    return snapshot(**models, **more)


def asked(path, brokers=None):
    """The name of the model that a request to this path runs, by v1 and by v2."""
    site = Site(brokers=brokers or served())
    answer(site.post(f"/v1/models/{path}:predict", {"instances": [1]}))
    answer(site.post(f"/v2/models/{path}/infer", {"inputs": [ONE]}))
    one, two = site.seen
    assert one.model == two.model
    return one.model


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("bert", "bert"),
        ("bert/versions/1", "bert@1"),
        ("bert/versions/9", "bert@9"),
        ("bert@9/versions/1", "bert@9"),  # which has no versions of its own
        ("plain/versions/1", "plain"),
        ("stable/versions/9", "stable"),
        ("other/versions/1", "plain"),
    ],
)
def test_a_version_in_a_path_is_the_model_of_that_version(path, model):
    assert asked(path) == model


@pytest.mark.parametrize(
    ("path", "detail", "models"),
    [
        ("bert/versions/7", "there are '1', '9', '10'", ["bert@1", "bert@9", "bert@10"]),
        ("bert/versions/@", "no version '@'", ["bert@1", "bert@9", "bert@10"]),
        ("plain/versions/2", "there is '1'", ["plain"]),
        ("stable/versions/1", "there is '9'", ["bert@9"]),
        ("nobody/versions/1", "no model 'nobody'", sorted(served()["models"])),
    ],
)
def test_an_unknown_version_is_a_404_that_lists_those_there_are(path, detail, models):
    site = Site(brokers=served())
    for response in (
        site.post(f"/v1/models/{path}:predict", {"instances": [1]}),
        site.post(f"/v2/models/{path}/infer", {"inputs": [ONE]}),
        site.get(f"/v1/models/{path}"),
        site.get(f"/v2/models/{path}"),
        site.get(f"/v2/models/{path}/ready"),
    ):
        found = problem(response, 404)
        assert detail in found["detail"]
        assert found["models"] == models
    assert not site.seen


def test_version_1_of_a_model_that_has_others_is_not_the_model_itself():
    site = Site(brokers=snapshot(**{"bert": {}, "bert@2": {}}))
    detail = problem(site.get("/v2/models/bert/versions/1/ready"), 404)["detail"]
    assert "there is '2'" in detail


def test_a_version_whose_workers_are_away_is_waited_for():
    brokers = snapshot(**{"bert": {}, "bert@2": {"workers": [], "ready": False}})
    site = Site(brokers=brokers)
    answer(site.post("/v1/models/bert/versions/2:predict", {"instances": [1]}))
    assert site.seen[0].model == "bert@2"
    problem(site.get("/v2/models/bert/versions/2/ready"), 503)


def test_a_version_that_is_not_known_is_looked_for_in_a_fresh_snapshot():
    site = Site(brokers=served())
    step = site.begin("POST", "/v1/models/bert/versions/11:predict", {"instances": [1]})
    assert isinstance(step, Look)
    step = step.answered(served())
    assert isinstance(step, Look)
    assert step.oldest < 1
    step = step.answered(served(**{"bert@11": {}}))
    assert step.model == "bert@11"


def test_the_answers_of_v2_say_which_version_it_was():
    site = Site(brokers=served())
    for path, version in (("bert/versions/9", "9"), ("plain/versions/1", "1"), ("plain", "1")):
        found = answer(site.post(f"/v2/models/{path}/infer", {"inputs": [ONE]}))
        assert (found["model_name"], found["model_version"]) == (path.partition("/")[0], version)
        assert answer(site.get(f"/v2/models/{path}"))["name"] == path.partition("/")[0]
    assert "model_version" not in answer(site.post("/v2/models/bert/infer", {"inputs": [ONE]}))
    assert answer(site.get("/v2/models/bert"))["versions"] == ["1", "9", "10"]
    assert answer(site.get("/v2/models/plain"))["versions"] == ["1"]
    assert answer(site.get("/v1/models/bert/versions/9"))["name"] == "bert@9"
