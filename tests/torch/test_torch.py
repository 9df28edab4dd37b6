"""`TorchModel` on the CPU, and on CUDA where there is one."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

from examples.bert_model import ManagedBertModel
from zstreamer import ItemError, ThreadedStreamer, failure
from zstreamer.errors import PredictError
from zstreamer.model import Loaded
from zstreamer.torch import TorchModel, buckets
from zstreamer.torch import device as devices
from zstreamer.torch.tensors import plain as as_plain
from zstreamer.worker.runner import ModelBroken, Runner

LENGTHS, COUNTS = (4, 6, 8), (2, 5)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads_as_before():
    """A test that changes how many threads torch uses changes it for itself alone."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Attention(nn.Module):
    """A layer in which each place looks at all others, so that padding would show."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, 16)
        self.layer = nn.MultiheadAttention(16, 2, dropout=0.5, batch_first=True)

    def forward(self, ids, mask):
        words = self.embedding(ids)
        mixed, _ = self.layer(words, words, words, key_padding_mask=mask == 0)
        return (mixed * mask[..., None]).sum(1)


class Tiny(TorchModel):
    """Answers a list of numbers below 50 with 16 of its own; keeps what went on inside.

    Attributes:
        shapes: of the batches that it ran, in order.
        modes: whether autograd was off in each.
        prepared: how often an item was prepared.
    """

    example = ([7, 8, 9], [3])
    padding = {"ids": 0, "mask": 0}  # noqa: RUF012

    def load(self):
        self.shapes, self.modes, self.prepared = [], [], 0
        return Attention()

    def prepare(self, item):
        self.prepared += 1
        if item == "bad":
            raise ValueError("a bad item")
        return {"ids": item, "mask": np.ones(len(item), np.int64), "_item": str(item)}

    def forward(self, inputs):
        self.shapes.append(tuple(inputs["ids"].shape))
        self.modes.append(torch.is_inference_mode_enabled())
        return super().forward(inputs)


class Bucketed(Tiny):
    length_buckets, batch_buckets = LENGTHS, COUNTS


def loaded(kind=Tiny, **settings):
    model = kind()
    model.init_model(**{"device": "cpu", "dtype": "float32", **settings})
    return model


@pytest.fixture(scope="module")
def plain():
    return loaded()


@pytest.fixture(scope="module")
def bucketed():
    return loaded(Bucketed)


# ------------------------------------------------------------------ batches


@settings(deadline=None, max_examples=50)
@given(some.lists(some.lists(some.integers(1, 49), min_size=1, max_size=8), max_size=12))
def test_buckets_do_not_change_the_answers(plain, bucketed, items):
    alone = [plain([item])[0] for item in items]
    together = bucketed(items)
    assert len(together) == len(items)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_only_the_sizes_of_the_buckets_are_run():
    model = loaded(Bucketed)
    for count in range(1, 13):
        model([[1] * (1 + count % 8)] * count)
    assert set(model.shapes) == {(count, length) for count in COUNTS for length in LENGTHS}


def test_without_buckets_a_batch_runs_as_it_comes(plain):
    plain.shapes.clear()
    plain([[1] * 3, [2] * 7])
    assert plain.shapes == [(2, 7)]


def test_nothing_is_run_for_nothing(plain):
    plain.shapes.clear()
    assert plain.predict([]) == plain([]) == []
    assert plain.shapes == []


def test_an_item_beyond_the_last_bucket_is_named_whichever_part_it_is_in(bucketed):
    batch = [bucketed.prepare([1] * (9 if i == 7 else 3)) for i in range(9)]
    with pytest.raises(ItemError, match="cut it in `prepare`, or add a bucket") as raised:
        bucketed.predict(batch)
    assert raised.value.index == 7
    outcomes = Runner(bucketed.predict).run(batch, [False] * 9)
    assert [i for i, each in enumerate(outcomes) if isinstance(each, PredictError)] == [7]


def test_the_features_of_a_transformers_tokenizer_can_be_taken_as_they_are():
    class Texts(ManagedBertModel):
        def prepare(self, text):
            return self.tokenizer(text, return_token_type_ids=False)

        def forward(self, inputs):
            return self.bert.base_model(**inputs)

        def finish(self, output, tokens):
            return output["last_hidden_state"][: len(tokens["input_ids"])].numpy()

    model = loaded(Texts, name="small-bert")
    short, _ = model(["a cat", "a cat that sat on a very long mat for a very long time"])
    assert short.shape == (4, 384)
    np.testing.assert_allclose(short, model(["a cat"])[0], atol=1e-4)


# ------------------------------------------------------------------ steps


def test_each_item_is_prepared_once():
    model = loaded(Tiny)
    model.prepared = 0
    model([[1], [2], [3]])
    assert model.prepared == 3


def test_an_item_that_cannot_be_prepared_fails_alone(plain):
    first, bad, last = plain([[1], "bad", [2]])
    assert isinstance(bad, ValueError)
    assert first.shape == last.shape == (16,)


def test_it_runs_in_a_threaded_streamer():
    with ThreadedStreamer(loaded(), 8) as streamer:
        future = streamer.submit(["bad"])
        [answer] = streamer.predict([[1, 2]])
        assert answer.shape == (16,)
        with pytest.raises(PredictError, match="a bad item"):
            future.result(20)


def test_autograd_is_off_and_the_module_in_evaluation_mode(plain):
    plain([[1, 2]])
    assert all(plain.modes)
    assert not plain.module.training
    assert not any(parameter.requires_grad for parameter in plain.module.parameters())


class Steps(TorchModel):
    """Doubles what it is given; what comes in and goes out is up to the test."""

    def load(self):
        return nn.Identity()

    def forward(self, inputs):
        return inputs["x"] * 2


def test_by_default_items_are_features_and_answers_arrays_or_numbers():
    model = loaded(Steps)
    assert model([{"x": 1}, {"x": 2}]) == [2, 4]
    assert model([{"x": 0.25}]) == [0.5]
    [answer] = loaded(Steps, dtype="bfloat16")([{"x": [0.25, 0.5]}])
    assert answer.dtype == np.float32
    assert answer.tolist() == [0.5, 1.0]


def test_floating_point_features_take_the_dtype_of_the_model_and_others_keep_theirs():
    class Dtypes(Steps):
        def forward(self, inputs):
            self.seen = {name: tensor.dtype for name, tensor in inputs.items()}
            return inputs["x"]

    model = loaded(Dtypes, dtype="bfloat16")
    model([{"x": 0.5, "single": np.float32(1), "whole": 1, "byte": np.uint8(1), "_note": "no"}])
    assert model.seen == {
        "x": torch.bfloat16,
        "single": torch.bfloat16,
        "whole": torch.int64,
        "byte": torch.uint8,
    }


def test_a_mapping_of_tensors_is_shared_out_by_name():
    class Two(Steps):
        def forward(self, inputs):
            return {"same": inputs["x"], "squares": inputs["x"] ** 2}

    assert loaded(Two)([{"x": 2}, {"x": 3}]) == [
        {"same": 2, "squares": 4},
        {"same": 3, "squares": 9},
    ]


@pytest.mark.parametrize("outputs", [None, [1, 2], {"a": (torch.ones(2),)}], ids=repr)
def test_other_outputs_are_refused_with_the_fix(outputs):
    class Wrong(Steps):
        def forward(self, inputs):
            return outputs

    with pytest.raises(TypeError, match="it must return a tensor with a row for each item"):
        loaded(Wrong)([{"x": 1}])


class Table(TorchModel):
    """Has no `prepare`, as most models of images and tables."""

    example = (np.ones(3, np.float32),)

    def load(self):
        torch.manual_seed(0)
        return nn.Linear(3, 2)


@pytest.mark.parametrize(
    "item", [np.ones(3, np.float32), torch.ones(3), [1.0, 1.0, 1.0], {"input": [1.0, 1.0, 1.0]}]
)
def test_a_lone_array_is_the_one_input_of_the_module(item):
    model = loaded(Table)
    expected = model.module(torch.ones(3)).tolist()
    for answer in model([item, item]):
        np.testing.assert_allclose(answer, expected, atol=1e-6)


def test_lone_lists_of_several_lengths_can_be_padded():
    class Sum(Steps):
        padding = {"input": 0}  # noqa: RUF012

        def forward(self, inputs):
            return inputs["input"].sum(1)

    assert loaded(Sum)([[1, 2, 3], [4]]) == [6, 4]


@pytest.mark.parametrize("item", ["text", b"bytes", None, {1, 2}])
def test_an_item_that_is_no_features_fails_alone_with_what_features_are(item):
    model = loaded(Table)
    first, bad, last = Runner(model.predict).run([np.ones(3), item, np.ones(3)], [False] * 3)
    assert first.shape == last.shape == (2,)
    assert f"an item is {type(item).__name__}: the features" in bad.message


def test_who_has_other_features_than_its_mates_is_run_without_them():
    class Any(Steps):
        def forward(self, inputs):
            return sum(inputs.values())

    batch = [{"x": 1}, {"x": 1, "y": 2}, {"x": 3, "_note": "no"}]
    assert Runner(loaded(Any).predict).run(batch, [False] * 3) == [1, 3, 3]
    with pytest.raises(ValueError, match="feature 'y' is not in all items"):
        loaded(Any).predict(batch)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (torch.tensor(1.0), r"a tensor of shape \[\] for a batch of 2"),
        (torch.ones(3, 2), r"a tensor of shape \[3, 2\] for a batch of 2"),
        ({"logits": torch.ones(2), "loss": torch.tensor(1.0)}, r"'loss' of shape \[\]"),
        ({"logits": torch.ones(2), "more": torch.ones(1)}, r"'more' of shape \[1\]"),
        ({}, "an empty mapping"),
    ],
    ids=str,
)
def test_an_output_without_a_row_for_each_item_is_named_with_its_shape(outputs, words):
    class Wrong(Steps):
        def forward(self, inputs):
            return outputs

    with pytest.raises(ValueError, match=words):
        loaded(Wrong)([{"x": 1}, {"x": 2}])


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.to(torch.bfloat16),
        lambda x: x.to(torch.float8_e4m3fn),
        lambda x: x.clone().requires_grad_(True),
        lambda x: nn.Parameter(x.to(torch.bfloat16)),
        lambda x: torch.complex(x, x).conj().real,
        lambda x: torch.complex(x, -x).conj().imag,
        lambda x: x.to_sparse(),
    ],
)
def test_a_tensor_of_any_kind_becomes_an_array(make):
    with torch.inference_mode(False):
        made = make(torch.ones(2, 3))
    assert as_plain(made).tolist() == [[1, 1, 1]] * 2


def test_a_broken_device_in_finish_is_no_items_error():
    class Broken(Steps):
        def finish(self, output, item):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(ModelBroken):
        Runner(loaded(Broken).predict).run([{"x": 1}], [False])


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="torch is older than 2.8")
def test_an_error_of_torchs_own_class_for_devices_breaks_the_process():
    error = torch.AcceleratorError("whatever it says")
    assert failure.fatal(error)
    assert not failure.fatal(torch.AcceleratorError("CUDA error: invalid argument"))
    assert failure.out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert failure.out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried …"))
    assert not failure.fatal(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried …"))


def test_an_answer_that_cannot_be_finished_is_that_items_error():
    class Choosy(Steps):
        def finish(self, output, item):
            return 6 // item["x"]

    first, bad, last = loaded(Choosy)([{"x": 1}, {"x": 0}, {"x": 3}])
    assert (first, last) == (6, 2)
    assert (bad.type, "in finish" in bad.traceback) == ("ZeroDivisionError", True)


def test_load_must_return_a_module():
    class NoModule(TorchModel):
        def load(self):
            return {"weights": 1}

    with pytest.raises(TypeError, match=r"load returned dict: it must return the torch.nn.Module"):
        loaded(NoModule)
    with pytest.raises(NotImplementedError, match="TorchModel does not define load"):
        loaded(TorchModel)


def test_what_init_model_does_not_know_goes_to_load():
    class Named(Steps):
        def load(self, name, size=1):
            self.given = (name, size, self.device, self.dtype)
            return nn.Identity()

    model = Named()
    model.init_model("weights", size=3, device="cpu", dtype="float32")
    assert model.given == ("weights", 3, CPU, torch.float32)


# ------------------------------------------------------------------ warm-up


def test_each_size_is_run_before_the_first_request_the_largest_first():
    model = loaded(Bucketed)
    assert model.shapes == [(5, 8), (5, 6), (5, 4), (2, 8), (2, 6), (2, 4)]


def test_without_batch_buckets_each_length_is_run_with_one_item():
    class Lengths(Tiny):
        length_buckets = LENGTHS

    assert loaded(Lengths).shapes == [(1, 8), (1, 6), (1, 4)]


def test_without_an_example_nothing_is_run():
    class Bare(Bucketed):
        example = None

    assert loaded(Bare).shapes == []


def test_buckets_below_the_shortest_example_are_left_out_in_so_many_words(caplog):
    class Long(Bucketed):
        example = ([1] * 8, [1] * 5)

    assert loaded(Long).shapes == [(5, 8), (5, 6), (2, 8), (2, 6)]
    assert "no warm-up below length 5" in caplog.text


def test_a_size_that_does_not_fit_into_memory_is_left_out_in_so_many_words(caplog, emptied):
    class Narrow(Bucketed):
        def forward(self, inputs):
            if len(inputs["ids"]) > 2:
                raise torch.cuda.OutOfMemoryError("too large")
            return super().forward(inputs)

    assert loaded(Narrow).shapes == [(2, 8), (2, 6), (2, 4)]
    assert "no memory for 5 items of length 8" in caplog.text
    assert emptied() == 3


@pytest.mark.parametrize("name", ["length_buckets", "batch_buckets"])
def test_buckets_that_do_not_ascend_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be whole numbers"):
        loaded(type("Descending", (Tiny,), {name: (8, 4)}))


# ------------------------------------------------------------------ memory


@pytest.fixture
def emptied(monkeypatch):
    """How often torch was asked to give its unused CUDA memory back."""
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(1))
    return lambda: len(calls)


def test_after_running_out_of_memory_nothing_of_the_batch_is_kept(monkeypatch):
    held, alive = [], []

    class Narrow(Steps):
        def forward(self, inputs):
            large = inputs["x"] * 2
            held.append(weakref.ref(large))
            if len(large) > 2:
                raise torch.cuda.OutOfMemoryError("too large")
            return large

    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: alive.append([r() for r in held if r() is not None])
    )
    runner = Runner(loaded(Narrow).predict)
    assert runner.run([{"x": i} for i in range(8)], [False] * 8) == [2 * i for i in range(8)]
    assert runner.limit == 2
    assert alive == [[]] * 3


# ------------------------------------------------------------------ torch.compile


@pytest.fixture
def programs(monkeypatch):
    """Let torch.compile trace as ever, but build nothing; gives the sizes that it was asked for."""
    sizes = []

    def backend(graph, inputs):
        sizes.append(next(tuple(each.shape) for each in inputs if each.dtype is torch.int64))
        return graph

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return sizes


class Compiled(Bucketed):
    """Without the lists, which no compiled program can keep."""

    length_buckets = buckets(2, 8)

    def forward(self, inputs):
        return self.module(**inputs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_is_compiled_for_each_size_before_the_first_request(programs, plain):
    model = loaded(Compiled, compile=True)
    sizes = {(count, length) for count in COUNTS for length in Compiled.length_buckets}
    assert (len(programs), set(programs)) == (len(sizes), sizes)
    for count in range(1, 8):
        items = [[count] * (1 + count % 8)] * count
        np.testing.assert_allclose(model(items)[0], plain(items)[0], atol=1e-5)
    assert len(programs) == len(sizes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_compiled_is_said_at_the_start(monkeypatch):
    def backend(graph, inputs):
        raise OSError("no C++ compiler")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    with pytest.raises(RuntimeError, match="do without compile=True") as raised:
        loaded(Compiled, compile=True)
    assert "no C++ compiler" in str(raised.value.__cause__)


@pytest.mark.parametrize("lacking", ["example", "batch_buckets", "length_buckets"])
def test_compiling_without_sizes_is_refused_with_the_fix(lacking):
    with pytest.raises(ValueError, match="the class must name them"):
        loaded(type("Lacking", (Compiled,), {lacking: ()}), compile=True)


# ------------------------------------------------------------------ device, dtype, threads


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.fixture
def one_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


def test_cuda_is_taken_where_there_is_one(one_cuda):
    assert devices.choose_device().type == "cuda"
    assert devices.choose_device("auto", given="3").type == "cuda"
    assert devices.choose_device("cuda:0").type == "cuda"
    assert devices.choose_device("cpu", given="3") == CPU


def test_else_the_cpu(no_cuda):
    assert devices.choose_device() == CPU


def test_a_gpu_that_the_worker_was_given_must_be_there(no_cuda, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    words = "sees 0 CUDA devices with CUDA_VISIBLE_DEVICES=3.*check the driver and --devices"
    with pytest.raises(ValueError, match=f"(?i){words}"):
        Loaded(Steps, "3")
    Loaded(Steps, "3", kwargs={"device": "cpu", "dtype": "float32"})


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("cuda:1", 'sees 1 CUDA devices.*or choose device="cpu"'),
        ("gpu", 'must be "auto", "cpu", "cuda", "cuda:N" or "mps", not \'gpu\''),
        ("mps", "needs macOS"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_the_fix(one_cuda, wanted, words):
    with pytest.raises(ValueError, match=words):
        devices.choose_device(wanted)


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((9, 0), torch.bfloat16),
        ((8, 0), torch.bfloat16),
        ((7, 5), torch.float16),
        ((6, 1), torch.float32),
    ],
)
def test_cuda_devices_run_what_their_tensor_cores_do(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert devices.choose_dtype("auto", torch.device("cuda")) is dtype


@pytest.mark.parametrize(
    ("bfloat16_seconds", "expected"),
    [(0.3, torch.bfloat16), (1.1, torch.float32), (4.0, torch.float32)],
)
def test_on_a_cpu_bfloat16_is_chosen_only_where_it_is_faster(
    monkeypatch, bfloat16_seconds, expected
):
    seconds = {torch.bfloat16: bfloat16_seconds, torch.float32: 1.0}
    monkeypatch.setattr(devices, "_layer_seconds", lambda: seconds)
    assert devices.choose_dtype("auto", CPU) is expected
    assert loaded(Steps, dtype="auto").dtype is expected


def test_measuring_leaves_the_random_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    devices.fastest_dtype(CPU)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, "torch.bfloat16"], ids=repr)
def test_a_named_dtype_is_that_of_the_module(dtype):
    model = loaded(dtype=dtype)
    assert model.dtype is torch.bfloat16
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", ["int7", torch.int8, "half"], ids=repr)
def test_another_dtype_is_refused_with_those_there_are(dtype):
    words = "dtype must be one of auto, float32, bfloat16, float16, not"
    with pytest.raises(ValueError, match=words):
        loaded(dtype=dtype)


def test_threads_are_as_many_as_was_said():
    loaded(Steps, threads=1)
    assert torch.get_num_threads() == 1
    loaded(Steps)
    assert torch.get_num_threads() == 1, "without a word they are left alone"


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True], ids=repr)
def test_threads_that_make_no_sense_are_refused(threads):
    with pytest.raises(ValueError, match="threads must be a whole number of at least 1"):
        loaded(Steps, threads=threads)


class Threads(Steps):
    """Tells how many threads torch has in a worker."""

    def finish(self, output, item):
        return torch.get_num_threads()


def test_in_a_worker_the_variable_counts_and_an_argument_before_it_and_its_choices_are_logged(
    shared, monkeypatch, capfd
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cases = {"threads-variable": ({}, 1), "threads-argument": ({"threads": 2}, 2)}
    with contextlib.ExitStack() as stack:
        for model, (kwargs, _) in cases.items():  # both start meanwhile
            settings = {"model": model, "init_kwargs": kwargs, "log_level": "info"}
            stack.enter_context(shared.worker("tests.torch.test_torch:Threads", **settings))
        for model, (_, threads) in cases.items():
            client = stack.enter_context(shared.client(model=model))
            client.wait_ready(30)
            assert client.predict([{"x": 1}]) == [threads]
    log = capfd.readouterr().err
    assert re.search(r"device=\w+ \(asked for auto\) dtype=torch\.\w+ \(asked for auto\)", log), log


# ------------------------------------------------------------------ import


def test_without_torch_the_import_says_what_to_install():
    code = (
        "import sys, zstreamer; assert 'torch' not in sys.modules; sys.modules['torch'] = None;"
        "import zstreamer.torch"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    wanted = "ImportError: zstreamer.torch needs PyTorch: pip install 'zstreamer[torch]'"
    assert done.stderr.splitlines()[-1] == wanted


# ------------------------------------------------------------------ CUDA


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@cuda
def test_on_cuda_the_answers_are_those_of_the_cpu(bucketed):
    model = loaded(Bucketed, device="cuda")
    items = [[1 + n % 49] * (1 + n % 8) for n in range(20)]
    for one, other in zip(model(items), bucketed(items), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@cuda
def test_on_cuda_inputs_come_from_pinned_memory_and_outputs_go_into_it():
    model = loaded(Bucketed, device="auto", dtype="auto")
    inputs = model.collate([model.prepare([1, 2]), model.prepare([3])])
    assert all(tensor.is_pinned() for tensor in inputs.values())
    assert model.device.type == "cuda"
    with torch.inference_mode():
        fetched = model._run([model.prepare([1, 2])] * 2)
        fetched.wait()
        assert fetched.outputs().is_pinned()


@cuda
def test_on_cuda_a_batch_that_does_not_fit_runs_in_parts():
    class Hungry(Steps):
        def forward(self, inputs):
            free, _ = torch.cuda.mem_get_info()
            torch.empty(len(inputs["x"]) * int(free * 0.3), dtype=torch.uint8, device="cuda")
            return inputs["x"] * 2

    runner = Runner(loaded(Hungry, device="cuda").predict)
    assert runner.run([{"x": i} for i in range(8)], [False] * 8) == [2 * i for i in range(8)]
    assert runner.limit < 8
