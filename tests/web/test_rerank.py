"""What `POST /v1/rerank` asks of a model, and what it answers."""

import json

import numpy as np
import pytest

from tests.helpers.web_requests import Site, answer, snapshot
from zstreamer.web.api.limits import Limits

PATH = "/v1/rerank"


def lengths(pairs):
    """Scores by the length of the document."""
    return [np.float32(len(document)) for _, document in pairs]


def ask(site=None, **body):
    return (site or Site(lengths)).post(PATH, {"model": "default", "query": "who?", **body})


def test_documents_come_in_the_order_in_which_they_fit():
    site = Site(lengths)
    found = answer(ask(site, documents=["aa", {"text": "aaa"}, "a"]))
    assert site.seen[0].items == [["who?", "aa"], ["who?", "aaa"], ["who?", "a"]]
    assert found["model"] == "default"
    assert found["results"] == [
        {"index": 1, "relevance_score": 3.0},
        {"index": 0, "relevance_score": 2.0},
        {"index": 2, "relevance_score": 1.0},
    ]


def test_the_best_are_enough_and_come_with_their_texts_if_asked():
    found = answer(ask(documents=["a", {"text": "aaa"}], top_n=1, return_documents=True))
    assert found["results"] == [{"index": 1, "relevance_score": 3.0, "document": {"text": "aaa"}}]
    assert len(answer(ask(documents=["a", "b"], top_n=9))["results"]) == 2


def test_equal_scores_keep_the_order_of_the_documents():
    found = answer(ask(documents=["a", "b", "c"]))
    assert [each["index"] for each in found["results"]] == [0, 1, 2]


def test_the_only_model_is_meant_by_any_name():
    site = Site(lengths, snapshot(ranker={}))
    assert answer(ask(site, documents=["a"]))["model"] == "ranker"


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("query", {"query": None, "documents": ["a"]}),
        ("query", {"query": ["a"], "documents": ["a"]}),
        ("documents", {}),
        ("documents", {"documents": []}),
        ("documents", {"documents": "a"}),
        ("documents", {"documents": ["a", 5]}),
        ("documents", {"documents": [{"title": "a"}]}),
        ("top_n", {"documents": ["a"], "top_n": 0}),
        ("return_documents", {"documents": ["a"], "return_documents": 1}),
    ],
)
def test_a_field_that_makes_no_sense_is_named(field, body):
    response = ask(**body)
    assert response.status == 400
    assert json.loads(response.body)["error"]["param"] == field


@pytest.mark.parametrize("output", ["text", {"score": 1}, [1.0], None, np.zeros(2)])
def test_a_model_that_gives_no_scores_is_named(output):
    response = ask(Site(lambda _: [output]), documents=["a"])
    assert response.status == 400
    assert "gives no scores" in json.loads(response.body)["error"]["message"]


def test_a_request_has_so_many_documents_at_most():
    response = ask(Site(lengths, limits=Limits(max_items=2)), documents=["a", "b", "c"])
    assert response.status == 413
