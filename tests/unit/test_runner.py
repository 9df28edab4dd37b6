"""A bad item in a batch harms only itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer import codec, errors
from zstreamer.errors import PredictError, ZStreamerError
from zstreamer.model import ItemError
from zstreamer.worker.runner import PROBE_AFTER, Runner, encode


class Model:
    """Doubles numbers; what is in ``bad`` makes the whole batch fail.

    Attributes:
        batches: the batches that were tried, in order.
    """

    def __init__(self, bad=(), error=ValueError, fits=1000):
        self.bad = set(bad)
        self.error = error
        self.fits = fits
        self.batches = []

    def __call__(self, batch):
        self.batches.append(list(batch))
        if len(batch) > self.fits:
            raise MemoryError("too many at once")
        for item in batch:
            if item in self.bad:
                raise self.error(f"bad item {item}")
        return [2 * item for item in batch]


def run(model, items, once=()):
    runner = Runner(model)
    return runner.run(items, [item in once for item in items]), runner


def test_a_good_batch_runs_once():
    model = Model()
    outputs, runner = run(model, [1, 2, 3])
    assert outputs == [2, 4, 6]
    assert model.batches == [[1, 2, 3]]
    assert runner.clean


@given(some.integers(1, 20), some.sets(some.integers(0, 19)))
def test_only_bad_items_err_and_each_with_its_own_words(count, bad):
    model = Model(bad)
    outputs, runner = run(model, list(range(count)))
    for item, output in enumerate(outputs):
        if item in bad:
            assert isinstance(output, PredictError)
            assert output.message == f"bad item {item}"
            assert output.type == "ValueError"
            assert "Traceback" in output.traceback
        else:
            assert output == 2 * item
    assert runner.clean == (not bad & set(range(count)))


def test_one_bad_item_of_many_is_found_in_few_runs():
    model = Model([13])
    run(model, list(range(32)))
    assert len(model.batches) == 1 + 2 * 5


def test_an_exception_in_an_items_place_costs_no_second_run():
    calls = []

    def predict(batch):
        calls.append(batch)
        return [KeyError("no mask") if item == 2 else item for item in batch]

    outputs, runner = run(predict, [1, 2, 3])
    assert len(calls) == 1
    assert runner.clean
    assert [outputs[0], outputs[2]] == [1, 3]
    outcome = encode(outputs)[1]
    assert outcome == [500, "'no mask'", {"type": "KeyError", "traceback": ""}]


def test_items_that_may_run_only_once_err_with_their_batch_and_the_others_run_again():
    model = Model([3])
    outputs, _ = run(model, [1, 2, 3, 4], once=[2])
    assert [type(output) for output in outputs] == [int, PredictError, PredictError, int]
    assert model.batches == [[1, 2, 3, 4], [1, 3, 4], [1], [3, 4], [3], [4]]


def test_a_bad_item_that_may_run_only_once_lets_its_mates_run_again():
    model = Model([3])
    outputs, _ = run(model, [1, 2, 3, 4], once=[3])
    assert [type(output) for output in outputs] == [int, int, PredictError, int]
    assert model.batches == [[1, 2, 3, 4], [1, 2, 4]]


def test_nothing_of_a_batch_that_may_run_only_once_is_run_again():
    model = Model([3])
    outputs, _ = run(model, [1, 2, 3], once=[1, 2, 3])
    assert all(isinstance(output, PredictError) for output in outputs)
    assert len(model.batches) == 1


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([1, 2], "predict returned 2 outputs for 3 inputs"),
        ([1, 2, 3, 4], "predict returned 4 outputs for 3 inputs"),
        (None, "predict returned NoneType, not a list"),
        ("abc", "predict returned str, not a list"),
        (b"abc", "predict returned bytes, not a list"),
        ({1: 1, 2: 2, 3: 3}, "predict returned dict, not a list"),
        (5, "predict returned int, not a list"),
    ],
)
def test_a_wrong_number_of_outputs_is_told_to_everyone_and_nothing_is_run_again(outputs, words):
    calls = []

    def predict(batch):
        calls.append(batch)
        return outputs

    got, runner = run(predict, [1, 2, 3])
    assert len(calls) == 1
    assert not runner.clean
    for output in got:
        assert isinstance(output, PredictError)
        assert words in output.message


@pytest.mark.parametrize("outputs", [np.arange(3), (1, 2, 3), range(3), iter([1, 2, 3])])
def test_outputs_may_be_anything_that_can_be_listed(outputs):
    got, runner = run(lambda batch: outputs, [1, 2, 3])
    assert len(got) == 3
    assert runner.clean


def test_a_batch_that_does_not_fit_into_memory_runs_in_smaller_ones_from_then_on():
    model = Model(fits=4)
    runner = Runner(model)
    assert runner.run(list(range(16)), [False] * 16) == [2 * n for n in range(16)]
    assert runner.limit == 4
    model.batches.clear()
    assert runner.run(list(range(10)), [False] * 10) == [2 * n for n in range(10)]
    assert [len(batch) for batch in model.batches] == [4, 4, 2]
    assert not runner.clean


def test_after_a_while_one_item_more_is_tried():
    model = Model(fits=4)
    runner = Runner(model)
    runner.run(list(range(8)), [False] * 8)
    model.fits = 1000
    for _ in range(PROBE_AFTER):
        runner.run(list(range(8)), [False] * 8)
    assert runner.limit == 5


def test_an_item_that_does_not_fit_alone_errs_and_the_rest_does_not():
    def predict(batch):
        if "huge" in batch:
            raise MemoryError
        return batch

    outputs, _ = run(predict, ["a", "huge", "b"])
    assert outputs[0] == "a"
    assert outputs[2] == "b"
    assert isinstance(outputs[1], PredictError)
    assert outputs[1].type == "MemoryError"


def test_a_model_cannot_end_its_worker():
    outputs, _ = run(Model([2], error=SystemExit), [1, 2, 3])
    assert [outputs[0], outputs[2]] == [2, 6]
    assert isinstance(outputs[1], PredictError)
    assert outputs[1].type == "SystemExit"


def test_an_empty_batch_does_not_reach_the_model():
    model = Model()
    outputs, runner = run(model, [])
    assert outputs == []
    assert model.batches == []
    assert not runner.clean


def test_a_model_that_changes_its_input_list_does_not_harm_the_second_run():
    def predict(batch):
        taken = [batch.pop() for _ in range(len(batch))][::-1]
        if "bad" in taken:
            raise ValueError
        return taken

    outputs, _ = run(predict, ["a", "bad", "c"])
    assert [outputs[0], outputs[2]] == ["a", "c"]


# Outputs on their way out


def test_an_output_that_cannot_be_sent_is_that_items_error():
    good, bad, more = encode([1, object(), np.arange(2)])
    assert codec.decode(good) == 1  # type: ignore[arg-type]
    assert isinstance(bad, list)
    error = errors.from_wire(bad)
    assert isinstance(error, PredictError)
    assert "output cannot be sent" in error.message
    assert "object" in error.message
    assert list(codec.decode(more)) == [0, 1]  # type: ignore[arg-type,call-overload]


@pytest.mark.parametrize("error", [ZStreamerError("root"), PredictError("own"), OSError(5, "x")])
def test_any_error_in_an_items_place_can_be_sent(error):
    (outcome,) = encode([error])
    assert isinstance(outcome, list)
    assert isinstance(errors.from_wire(outcome), PredictError)


def test_an_error_that_names_its_item_runs_the_others_again_together():
    batches = []

    def predict(batch):
        batches.append(list(batch))
        if "bad" in batch:
            raise ItemError(batch.index("bad"), "it is bad")
        return [x.upper() for x in batch]

    outputs = Runner(predict).run(["a", "bad", "c", "d"], [False] * 4)

    assert batches == [["a", "bad", "c", "d"], ["a", "c", "d"]]
    assert [outputs[0], outputs[2], outputs[3]] == ["A", "C", "D"]
    assert (outputs[1].type, outputs[1].message) == ("ItemError", "it is bad")


def test_an_error_that_names_no_item_of_the_batch_is_like_any_other():
    def predict(batch):
        if "bad" in batch:
            raise ItemError(17, "somewhere")
        return batch

    outputs = Runner(predict).run(["a", "bad", "c"], [False] * 3)

    assert (outputs[0], outputs[2]) == ("a", "c")
    assert outputs[1].message == "somewhere"
