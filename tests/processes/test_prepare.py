"""`ManagedModel.prepare`: once for each item, before anything else sees it."""

import math
import threading
from collections import Counter

import pytest

from zstreamer import ManagedModel, ThreadedStreamer, errors
from zstreamer.model import Loaded


class Words(ManagedModel):
    """Splits texts into words; answers how often it did, and in which thread.

    "bad" and "large" fail when they are prepared, "leave" wants to end the process, "dear" fails
    when it is weighed; "boom" fails in predict.
    """

    example = ("one example",)
    refusals = {  # noqa: RUF012
        "bad": ValueError("a bad text"),
        "large": errors.TooLarge("a large text"),
        "leave": SystemExit(1),
    }

    def init_model(self):
        self.prepared = Counter()

    def prepare(self, text):
        self.prepared[text] += 1
        if text in self.refusals:
            raise self.refusals[text]
        return [threading.current_thread().name, *text.split()]

    def cost(self, words):
        assert isinstance(words, list)
        if "dear" in words:
            raise KeyError("dear")
        return math.inf if "endless" in words else len(words)

    def predict(self, batch):
        if any("boom" in words for words in batch):
            raise RuntimeError("the model met boom")
        return [[self.prepared[" ".join(words)], thread] for thread, *words in batch]


@pytest.fixture
def worker(shared):
    with shared.serving("tests.processes.test_prepare:Words", batch_size=16) as client:
        yield client


@pytest.fixture
def streamer():
    with ThreadedStreamer(Words, 16) as streamer:
        yield streamer


def test_in_a_worker_it_runs_once_and_on_arrival_even_if_the_batch_runs_again(worker):
    first, failed, last = worker.predict(["a b", "boom", "c"], return_exceptions=True)
    assert (first, last) == ([1, "reader"], [1, "reader"])
    assert failed.message == "the model met boom"


def test_in_a_threaded_streamer_it_runs_once_even_if_the_batch_runs_again():
    model = Words()
    model.init_model()
    with ThreadedStreamer(model, 16) as streamer:
        with pytest.raises(errors.PredictError, match="the model met boom"):
            streamer.predict(["a b", "boom", "c"])
        assert model.prepared == {"a b": 1, "boom": 1, "c": 1}


@pytest.mark.parametrize("where", ["worker", "streamer"])
@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [("bad", "ValueError", "a bad text"), ("leave", "SystemExit", "1")],
)
def test_an_item_that_cannot_be_prepared_fails_alone(request, where, text, kind, words):
    caller = request.getfixturevalue(where)
    futures = [caller.submit([each]) for each in ("a", text, "b")]
    with pytest.raises(errors.PredictError) as caught:
        futures[1].result(20)
    assert (caught.value.type, caught.value.message) == (kind, words)
    assert "in prepare" in caught.value.traceback
    assert [futures[i].result(20)[0][0] for i in (0, 2)] == [1, 1]


def test_an_input_error_of_ours_keeps_its_type(worker):
    with pytest.raises(errors.TooLarge, match="a large text"):
        worker.predict(["large"])


def test_the_cost_is_that_of_what_was_prepared(worker):
    with pytest.raises(errors.PredictError) as caught:
        worker.predict(["too dear"])
    assert caught.value.type == "KeyError"


def test_a_cost_without_end_is_that_items_error(worker):
    finite, endless = worker.predict(["a", "endless"], return_exceptions=True)
    assert finite == [1, "reader"]
    assert (endless.type, endless.message) == (
        "ValueError",
        "cost() returned inf; it must return a finite number",
    )


def test_of_several_items_of_a_call_the_first_that_fails_is_told(streamer):
    with pytest.raises(errors.PredictError, match="a bad text") as caught:
        streamer.predict(["a", "bad", "b"])
    assert caught.value.index == 1


def test_the_example_is_prepared_too():
    Loaded(Words).warm_up()


def test_a_model_without_it_gets_its_items_as_they_are():
    class Plain(ManagedModel):
        def predict(self, batch):
            return batch

    assert Loaded(Plain).prepare("item") == "item"


def test_another_object_may_mean_something_else_by_the_name():
    class Other:
        def prepare(self):
            raise AssertionError

        def predict(self, batch):
            return batch

    assert Loaded(Other()).prepare("item") == "item"


class Company(Words):
    """Prepares many texts at once, "odd" as an error in its place; answers who came along."""

    def prepare_batch(self, texts):
        if any(text in self.refusals for text in texts):
            raise ValueError("not all of them")
        self.prepared.update(texts)
        return [
            KeyError("odd") if text == "odd" else ["together", str(len(texts)), *text.split()]
            for text in texts
        ]

    def predict(self, batch):
        return [words[:2] for words in batch]


@pytest.fixture
def company(shared):
    with shared.serving("tests.processes.test_prepare:Company", batch_size=16) as client:
        yield client


def test_items_of_a_call_are_prepared_together(company):
    assert company.predict(["a b", "c", "d"]) == [["together", "3"]] * 3


def test_one_that_fails_in_company_fails_alone(company):
    first, odd, last = company.predict(["a", "odd", "b"], return_exceptions=True)
    assert first == last == ["together", "3"]
    assert odd.type == "KeyError"
    first, bad, last = company.predict(["a", "bad", "c"], return_exceptions=True)
    assert bad.message == "a bad text"
    assert (first, last) == (["reader", "a"], ["reader", "c"]), "they were prepared one by one"


def test_items_of_a_threaded_streamer_are_prepared_together():
    with ThreadedStreamer(Company, 16) as streamer:
        first, odd = streamer.predict(["a b", "odd"], return_exceptions=True)
    assert first == ["together", "2"]
    assert odd.type == "KeyError"


def test_a_prepare_that_is_defined_later_is_not_passed_over():
    class Own(Company):
        def prepare(self, text):
            return text.upper()

    assert Loaded(Company).prepare_batch is not None
    assert Loaded(Own).prepare_batch is None

    class Batch(ManagedModel):
        def prepare_batch(self, items):
            return [item + 1 for item in items]

        def predict(self, batch):
            return batch

    assert Loaded(Batch).prepare(1) == 2
