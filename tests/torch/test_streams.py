"""Batches on a device's streams and graphs, on a device without hardware."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest
import torch

from tests.torch.fake_cuda import FakeCapture, overlapping
from tests.torch.test_torch import Bucketed, Steps, Tiny, loaded
from zstreamer import ItemError
from zstreamer.model import Loaded
from zstreamer.torch import graphs, sizes
from zstreamer.torch.graphs import Graphs
from zstreamer.torch.sizes import Sizes, chosen
from zstreamer.torch.tensors import pack, unpack

# ------------------------------------------------------------------ streams


def begun(model, items):
    return model.begin([model.prepare(item) for item in items])


def test_two_batches_are_under_way_and_each_has_its_own_answers():
    model, plain = loaded(Bucketed), loaded()
    overlapping(model)
    batches = [[[n % 49 + 1] * (1 + n % 8)] * (1 + n % 5) for n in range(12)]
    before = begun(model, batches[0])
    for number, items in enumerate(batches[1:]):
        after = begun(model, items)
        before.wait()
        for answer, expected in zip(before.outputs(), plain(batches[number]), strict=True):
            np.testing.assert_allclose(answer, expected, atol=1e-5)
        before = after


def test_copies_are_in_streams_of_their_own_that_wait_for_each_other():
    model = loaded(Steps)
    streams, _ = overlapping(model)
    assert begun(model, [{"x": 1.0}]).outputs() == [2.0]
    assert streams.log == [
        "within in",
        "compute waits for in",
        "out waits for compute",
        "within out",
        "out event",
    ]


def test_it_overlaps_only_where_predict_is_not_the_users_own():
    class Own(Steps):
        def predict(self, batch):
            return super().predict(batch)

    for kind, expected in ((Steps, True), (Own, False)):
        model = loaded(kind)
        assert not model.overlaps
        assert Loaded(model).begin is None, "on the CPU"
        overlapping(model)
        assert model.overlaps is expected
        assert (Loaded(model).begin is not None) is expected


def test_an_item_beyond_the_last_bucket_is_named_in_whichever_part_it_is():
    model = loaded(Bucketed)
    overlapping(model)
    with pytest.raises(ItemError) as raised:
        begun(model, [[1]] * 7 + [[1] * 9])
    assert raised.value.index == 7


@pytest.mark.parametrize(
    "outputs",
    [
        torch.arange(6.0).reshape(2, 3),
        {"only": torch.arange(4)},
        {},
        {
            "flag": torch.tensor([True, False]),
            "wide": torch.arange(4.0, dtype=torch.float64).reshape(2, 2),
            "half": torch.ones(2, 3, dtype=torch.bfloat16),
            "byte": torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8),
            "none": torch.ones(2, 0),
            "across": torch.arange(6).reshape(3, 2).T,
            "point": torch.tensor(3),
        },
        {"thin": torch.eye(2).to_sparse(), "thick": torch.eye(2)},
        {"conjugate": torch.tensor([1 + 2j, 3]).conj(), "other": torch.ones(2)},
    ],
    ids=["tensor", "one", "none", "many", "sparse", "conjugate"],
)
def test_outputs_are_the_same_behind_one_copy(outputs):
    packed, layout = pack(outputs)
    got = unpack([each.clone() for each in packed], layout)
    if isinstance(outputs, torch.Tensor):
        assert torch.equal(got, outputs)
        return
    assert list(got) == list(outputs)
    for name, tensor in outputs.items():
        assert got[name].dtype is tensor.dtype
        assert torch.equal(got[name].to_dense(), tensor.to_dense())
    plain = all(t.layout is torch.strided and not t.is_conj() for t in outputs.values())
    assert not plain or len(packed) <= 1


# ------------------------------------------------------------------ graphs


def test_each_size_of_the_warm_up_has_a_graph_and_no_other_is_made():
    model = loaded(Bucketed)
    _, capture = overlapping(model)
    model.warm_up()
    assert capture.sizes == [(5, 8), (5, 6), (5, 4), (2, 8), (2, 6), (2, 4)]
    plain = loaded()
    for count in range(1, 8):
        items = [[count] * (1 + count % 8)] * count
        np.testing.assert_allclose(model(items)[0], plain(items)[0], atol=1e-5)
    assert len(capture.sizes) == 6


def double(inputs):
    return inputs["x"] * 2


def test_a_size_that_comes_often_gets_a_graph_and_one_that_comes_seldom_does_not():
    capture = FakeCapture()
    run = Graphs(double, capture)
    for number in range(graphs.OFTEN + 2):
        assert run({"x": torch.tensor([number])}).tolist() == [2 * number]
    assert run({"x": torch.tensor([1, 2])}).tolist() == [2, 4]
    assert capture.sizes == [(1,)]


def warm(run, *sizes):
    with run.warming_up():
        return [run({"x": torch.ones(size)}).tolist() for size in sizes]


def test_where_there_is_no_room_the_other_sizes_run_without(caplog):
    caplog.set_level(logging.INFO)
    capture = FakeCapture(most=2)
    run = Graphs(double, capture)
    assert warm(run, 3, 2, 1, 4) == [[2.0] * size for size in (3, 2, 1, 4)]
    assert capture.sizes == [(3,), (2,)]
    assert caplog.text.count("no room for more than 2 CUDA graphs") == 1


NOT_NOW = RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore words")


def test_what_cannot_be_captured_runs_without_and_says_so_once(caplog):
    run = Graphs(double, FakeCapture(error=NOT_NOW))
    assert warm(run, 3, 2) == [[2.0] * 3, [2.0] * 2]
    assert not run.active
    assert caplog.text.count("cannot be captured as a CUDA graph") == 1
    assert "more words" not in caplog.text


def test_where_graphs_are_required_it_is_an_error_that_says_what_to_do():
    with pytest.raises(RuntimeError, match="must not wait for the device"):
        warm(Graphs(double, FakeCapture(error=NOT_NOW), required=True), 3)


def test_inputs_that_fail_without_a_graph_too_are_to_blame_themselves():
    def picky(inputs):
        if len(inputs["x"]) == 3:
            raise ValueError("three")
        return inputs["x"]

    class Trying(FakeCapture):
        def __call__(self, forward, inputs):
            forward(inputs)
            return super().__call__(forward, inputs)

    run = Graphs(picky, Trying())
    with pytest.raises(ValueError, match="three"):
        warm(run, 3)
    assert warm(run, 2) == [[1.0, 1.0]]
    assert run.count == 1


def test_memory_that_runs_out_in_the_warm_up_is_told_and_later_only_ends_the_captures(caplog):
    run = Graphs(double, FakeCapture(error=torch.cuda.OutOfMemoryError("full")))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        warm(run, 2)
    for _ in range(graphs.OFTEN):
        assert run({"x": torch.ones(1)}).tolist() == [2.0]
    assert not run.active


def test_graphs_are_for_cuda_alone():
    for wanted in ("auto", False):
        assert loaded(Steps, graphs=wanted)._graphs is None
    with pytest.raises(ValueError, match="graphs=True needs a CUDA device"):
        loaded(Steps, graphs=True)
    with pytest.raises(ValueError, match='graphs must be "auto", True or False'):
        loaded(Steps, graphs="never")


# ------------------------------------------------------------------ sizes


def test_buckets_are_the_usual_sizes_and_a_grid_of_the_others():
    seen = Counter({50: 80, 3: 10, 20: 5, 33: 5})
    assert chosen(seen) == (3, 24, 48, 50)
    assert chosen(Counter()) == ()
    assert chosen(Counter({7: 1})) == (7,)


def test_a_size_that_hardly_ever_comes_has_no_bucket():
    assert chosen(Counter({64: 1000, 5: 1})) == (64,)


def test_sizes_are_as_they_come_until_they_are_known_and_another_load_is_learned():
    found = Sizes()
    assert [found.fit(n) for n in (5, 7)] == [5, 7]
    for _ in range(sizes.LEARN):
        found.fit(30)
    assert (found.fit(29), found.fit(31)) == (30, 31)
    for _ in range(6 * sizes.LEARN):
        found.fit(40)
    assert found.buckets == (40,)


def test_a_model_without_batch_buckets_learns_them():
    model = loaded(Tiny)
    _, capture = overlapping(model)
    for _ in range(sizes.LEARN + graphs.OFTEN):
        model.predict([model.prepare([1, 2])] * 3)
    assert capture.sizes == [(3, 2)]
    model.shapes.clear()
    assert len(model.predict([model.prepare([1, 2])] * 2)) == 2
    assert model.shapes == [(3, 2)], "it was filled up to the usual size"
