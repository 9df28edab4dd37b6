"""A model that starts a batch while the one before computes: answers, errors and deaths."""

from __future__ import annotations

import pytest

from tests.helpers.cluster import Cluster
from zstreamer import errors

TARGET = "tests.processes.overlapping:Overlapping"


@pytest.fixture(scope="module")
def client():
    with (
        Cluster() as cluster,
        cluster.worker(TARGET, batch_size=2, predict_timeout=1.0),
        cluster.client(timeout=60) as client,
    ):
        client.wait_ready(30)
        yield client


def test_the_next_batch_is_begun_while_one_computes_and_every_answer_is_its_own(client):
    answers = client.predict(list(range(200)))
    assert [item for item, *_ in answers] == list(range(200))
    beside = [others for _, others, size in answers if size == 2]
    assert max(beside) == 1, "no more than two at once"
    assert sum(beside) > len(beside) / 2, "most batches were begun ahead"


def test_a_batch_that_is_not_full_waits_for_its_turn(client):
    assert client.predict(["a"]) == [["a", 0, 1]]


@pytest.mark.parametrize("bad", ["bad", "unbegun"])
def test_a_bad_item_harms_neither_its_mates_nor_the_batch_beside_it(client, bad):
    items = [*range(30), bad, *range(30)]
    answers = client.predict(items, return_exceptions=True)
    assert isinstance(answers[30], errors.PredictError)
    assert [each[0] for each in answers if type(each) is list] == [*range(30), *range(30)]


@pytest.mark.parametrize("deadly", ["kill", "lost", "hang"])
def test_who_ends_the_process_is_found_though_two_batches_were_in_it(client, deadly):
    items = [*range(10), deadly, *range(10)]
    answers = client.predict(items, return_exceptions=True)
    assert isinstance(answers[10], errors.WorkerLost)
    assert [each[0] for each in answers if type(each) is list] == [*range(10), *range(10)]
