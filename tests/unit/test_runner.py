"""A bad item in a batch harms only itself."""

from __future__ import annotations

import itertools
from collections import Counter
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer import codec, errors
from zstreamer.errors import BadRequest, FatalError, PredictError, TooLarge, ZStreamerError
from zstreamer.model import ItemError
from zstreamer.worker.runner import DOUBT_AFTER, PROBE_AFTER, ModelBroken, Runner, encode


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


class Frame:
    """Like a data frame: to iterate over it gives the names of its columns."""

    columns = ("a", "b", "c")

    def __iter__(self):
        return iter(self.columns)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([], "predict returned 0 outputs for 1 input;"),
        ([1, 2, 3, 4], "predict returned 4 outputs for 1 input;"),
        (itertools.count(), "predict returned more than 1 outputs for 1 input;"),
        (None, "predict returned NoneType, not a list"),
        ("a", "predict returned str, not a list"),
        (b"a", "predict returned bytes, not a list"),
        (bytearray(b"a"), "predict returned bytearray, not a list"),
        ({1: 1}, "predict returned dict, not a list"),
        (MappingProxyType({1: 1}), "predict returned mappingproxy, not a list"),
        ({1}, "predict returned set, not a list"),
        (frozenset([1]), "predict returned frozenset, not a list"),
        (5, "predict returned int, not a list"),
        (np.array(5), "predict returned ndarray, not a list"),
        (np.float32(5), "predict returned float32, not a list"),
        (Frame(), "predict returned Frame, not a list"),
    ],
)
def test_what_is_no_list_of_one_output_for_each_input_is_told_in_words(outputs, words):
    (error,), runner = run(lambda batch: outputs, [1])
    assert not runner.clean
    assert isinstance(error, PredictError)
    assert error.message.startswith(words)
    assert (error.type, error.traceback) == ("WrongNumberOfOutputs", "")


@pytest.mark.parametrize(
    "outputs",
    [
        lambda batch: [x for x in batch if x != "drop"],
        lambda batch: batch * 2 if "drop" in batch else batch,
        lambda batch: None if "drop" in batch else batch,
        lambda batch: dict.fromkeys(batch) if "drop" in batch else batch,
        lambda batch: set(batch) if "drop" in batch else batch,
        lambda batch: 5 if "drop" in batch else batch,
        lambda batch: "".join(batch) if "drop" in batch else batch,
        lambda batch: itertools.cycle(batch) if "drop" in batch else batch,
    ],
)
@given(mates=some.lists(some.text("abc", min_size=1), max_size=8), data=some.data())
def test_who_makes_the_number_of_outputs_wrong_errs_alone(outputs, mates, data):
    at = data.draw(some.integers(0, len(mates)))
    items = [*mates[:at], "drop", *mates[at:]]
    got, _ = run(outputs, items)
    error = got.pop(at)
    assert isinstance(error, PredictError)
    assert error.type == "WrongNumberOfOutputs"
    assert got == mates


def test_of_a_batch_with_a_wrong_number_of_outputs_nothing_that_may_run_once_runs_again():
    batches = []

    def predict(batch):
        batches.append(list(batch))
        return [x for x in batch if x != 3]

    outputs, _ = run(predict, [1, 2, 3, 4], once=[2, 4])
    assert [type(output) for output in outputs] == [int, PredictError, PredictError, PredictError]
    assert batches == [[1, 2, 3, 4], [1, 3], [1], [3]]


def test_a_generator_that_raises_is_a_predict_that_raises():
    def predict(batch):
        for item in batch:
            yield item + 1

    outputs, _ = run(predict, [1, "two", 3])
    assert [outputs[0], outputs[2]] == [2, 4]
    assert outputs[1].type == "TypeError"
    assert "in predict" in outputs[1].traceback


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


def test_running_out_of_memory_again_restarts_the_count_of_batches_before_one_more_is_tried():
    model = Model(fits=4)
    runner = Runner(model)
    runner.run(list(range(8)), [False] * 8)
    for _ in range(PROBE_AFTER - 2):
        runner.run([1], [False])
    model.fits = 2
    runner.run([1, 2, 3, 4], [False] * 4)  # 1 of this limit
    assert runner.limit == 2
    for _ in range(PROBE_AFTER - 2):
        runner.run([1], [False])
        assert runner.limit == 2
    runner.run([1], [False])
    assert runner.limit == 3


def test_what_may_run_once_is_not_run_again_in_any_chunk_of_a_batch_that_is_run_in_several():
    model = Model(bad=[5, 6], fits=4)
    runner = Runner(model)
    runner.run(list(range(100, 108)), [False] * 8)
    assert runner.limit == 4
    model.batches.clear()
    items = list(range(10))
    once = [item in (1, 4, 7, 8) for item in items]
    outputs = runner.run(items, once)
    runs = Counter(item for batch in model.batches for item in batch)
    assert [runs[item] for item in (1, 4, 7, 8)] == [1] * 4
    assert runs[5] > 1
    failed = [item for item, output in enumerate(outputs) if isinstance(output, PredictError)]
    assert failed == [4, 5, 6, 7]


def test_one_item_that_never_fits_does_not_make_the_batches_of_all_others_smaller():
    def predict(batch):
        if "huge" in batch:
            raise MemoryError
        return batch

    runner = Runner(predict)
    outputs = runner.run(["a", "b", "huge", "c", "d", "e", "f", "g"], [False] * 8)
    assert [output for output in outputs if isinstance(output, str)] == list("abcdefg")
    assert runner.limit is None


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


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_model_cannot_end_its_worker(end):
    outputs, _ = run(Model([2], error=end), [1, 2, 3])
    assert [outputs[0], outputs[2]] == [2, 6]
    assert isinstance(outputs[1], PredictError)
    assert outputs[1].type == end.__name__


# Refusals


class NoMask(BadRequest):
    """A class of the user's own."""


@pytest.mark.parametrize("refusal", [BadRequest, TooLarge, NoMask])
@pytest.mark.parametrize("way", ["raised", "returned"])
def test_a_refusal_reaches_its_caller_as_what_it_is_and_nobody_else(refusal, way):
    def predict(batch):
        if way == "raised" and "bad" in batch:
            raise refusal("not with me")
        return [refusal("not with me") if item == "bad" else item for item in batch]

    outputs, _ = run(predict, ["a", "bad", "b", "c"])
    outcomes = encode(outputs)
    error = errors.from_wire(outcomes[1])
    assert type(error) is (BadRequest if refusal is NoMask else refusal)
    assert error.message == "not with me"
    assert [codec.decode(outcomes[i]) for i in (0, 2, 3)] == ["a", "b", "c"]


def test_who_may_run_only_once_is_not_blamed_for_what_its_batch_mates_may_have_sent():
    def predict(batch):
        raise BadRequest("one of you")

    outputs, _ = run(predict, ["a", "b"], once=["a"])
    assert [type(output) for output in outputs] == [PredictError, BadRequest]
    assert outputs[0].type == "BadRequest"


# A model that is broken


class Accelerator(RuntimeError):
    """As torch's own, which later releases raise for whatever a device has to say."""


Accelerator.__name__ = Accelerator.__qualname__ = "AcceleratorError"
Accelerator.__module__ = "torch"


def jax(text):
    return type("XlaRuntimeError", (RuntimeError,), {"__module__": "jaxlib.xla_extension"})(text)


def chained():
    try:
        raise RuntimeError("CUDA error: unspecified launch failure")
    except RuntimeError as cause:
        try:
            raise ValueError("forward failed") from cause
        except ValueError as error:
            return error


BREAKING = [
    FatalError("the session is gone"),
    RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be …"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( … )`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1234, unhandled system error"),
    RuntimeError("HIP error: the operation cannot be performed in the present state"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED, when calling …"),
    RuntimeError("merge_sort: failed to synchronize: cudaErrorIllegalAddress: an illegal memory …"),
    RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"),
    RuntimeError(
        "Caught RuntimeError in replica 0 on device 0.\nOriginal Traceback (most recent call "
        "last):\n  …\nRuntimeError: CUDA error: device-side assert triggered"
    ),
    Accelerator("CUDA error: unspecified launch failure"),
    chained(),
]

HARMLESS = [
    RuntimeError("CUDA error: invalid configuration argument"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx( … )`"),
    RuntimeError("the text 'CUDA error: device-side assert triggered' is too long"),
    ValueError("CUDA error: device-side assert triggered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
]


@pytest.mark.parametrize("error", BREAKING, ids=str)
@pytest.mark.parametrize("way", ["raised", "returned"])
def test_an_error_that_breaks_the_process_is_no_items_error(error, way):
    batches = []

    def predict(batch):
        batches.append(batch)
        if way == "raised":
            raise error
        return [error if item == 2 else item for item in batch]

    with pytest.raises(ModelBroken) as caught:
        run(predict, [1, 2, 3])
    assert caught.value.__cause__ is error
    assert len(batches) == 1


@pytest.mark.parametrize("error", HARMLESS, ids=str)
def test_an_error_that_leaves_the_process_whole_is_its_items_error(error):
    def predict(batch):
        if 2 in batch:
            raise error
        return batch

    outputs, _ = run(predict, [1, 2, 3])
    assert [outputs[0], outputs[2]] == [1, 3]
    assert outputs[1].type == type(error).__name__


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        Accelerator("CUDA error: out of memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: "
            "can't allocate memory: you tried to allocate 4096 bytes"
        ),
        jax("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4096 bytes."),
    ],
    ids=str,
)
def test_memory_that_a_device_lacks_is_a_reason_for_smaller_batches(error):
    def predict(batch):
        if len(batch) > 2:
            raise error
        return batch

    outputs, runner = run(predict, [1, 2, 3, 4])
    assert outputs == [1, 2, 3, 4]
    assert runner.limit == 2


class Doubtful:
    """Fails on whatever is bad, and on its example too once it is broken."""

    def __init__(self):
        self.broken = False
        self.checks = 0

    def predict(self, batch):
        if self.broken or "bad" in batch:
            raise OSError("who knows why")
        return batch

    def check(self):
        self.checks += 1
        self.predict(["example"])


def test_a_model_that_answers_nothing_any_more_has_to_run_its_example():
    model = Doubtful()
    runner = Runner(model.predict, model.check)
    model.broken = True
    for _ in range(DOUBT_AFTER - 1):
        assert isinstance(runner.run(["a", "b"], [False] * 2)[0], PredictError)
    with pytest.raises(ModelBroken, match="fails on its own example: who knows why"):
        runner.run(["a"], [False])


def test_a_model_that_can_run_its_example_is_left_alone_and_asked_ever_more_seldom():
    model = Doubtful()
    runner = Runner(model.predict, model.check)
    for _ in range(8 * DOUBT_AFTER):
        runner.run(["bad"], [False])
    assert model.checks == 4  # after 3, 6, 12 and 24
    runner.run(["good"], [False])
    for _ in range(DOUBT_AFTER):
        runner.run(["bad"], [False])
    assert model.checks == 5


def test_a_model_that_answers_some_or_refuses_inputs_is_not_doubted():
    def predict(batch):
        if "refuse" in batch:
            raise BadRequest("no")
        return [ValueError("no") if item == "bad" else item for item in batch]

    def check():
        raise AssertionError("there is no reason to")

    runner = Runner(predict, check)
    for _ in range(5 * DOUBT_AFTER):
        runner.run(["bad", "good"], [False] * 2)
        runner.run(["refuse"], [False])


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

    outputs: list[Any] = Runner(predict).run(["a", "bad", "c", "d"], [False] * 4)

    assert batches == [["a", "bad", "c", "d"], ["a", "c", "d"]]
    assert [outputs[0], outputs[2], outputs[3]] == ["A", "C", "D"]
    assert (outputs[1].type, outputs[1].message) == ("ItemError", "it is bad")


def test_an_error_that_names_no_item_of_the_batch_is_like_any_other():
    def predict(batch):
        if "bad" in batch:
            raise ItemError(17, "somewhere")
        return batch

    outputs: list[Any] = Runner(predict).run(["a", "bad", "c"], [False] * 3)

    assert (outputs[0], outputs[2]) == ("a", "c")
    assert outputs[1].message == "somewhere"
