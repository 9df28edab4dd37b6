"""Buckets, and batches of items of several lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from zstreamer import ItemError
from zstreamer.torch import buckets
from zstreamer.torch.padding import check_buckets, fitting, length_of, lengthen, pad, stack


def test_buckets_are_powers_of_two_and_the_middles_between_them():
    assert buckets(16, 128) == (16, 24, 32, 48, 64, 96, 128)
    assert buckets(1, 8) == (1, 2, 3, 4, 6, 8)
    assert buckets(20, 100) == (24, 32, 48, 64, 96, 100)
    assert buckets(7, 7) == (7,)


@given(some.integers(1, 3000), some.integers(0, 3000))
def test_a_bucket_adds_at_most_half(low, more):
    sizes = buckets(low, low + more)
    check_buckets("sizes", sizes)
    assert sizes[-1] == low + more
    for size in range(low, low + more + 1, 7):
        assert size <= fitting(size, sizes) <= max(1.5 * size, sizes[0])


@pytest.mark.parametrize(("low", "high"), [(0, 8), (9, 8), (-1, 1)])
def test_buckets_that_make_no_sense_are_refused(low, high):
    with pytest.raises(ValueError, match="from 1 or more upwards"):
        buckets(low, high)


@pytest.mark.parametrize("sizes", [(8, 4), (4, 4), (0, 4), (-1,)])
def test_sizes_must_ascend_from_one(sizes):
    with pytest.raises(ValueError, match="length_buckets must be whole numbers from 1 on"):
        check_buckets("length_buckets", sizes)


def test_a_range_will_do():
    check_buckets("length_buckets", range(16, 513, 16))
    assert fitting(17, range(16, 513, 16)) == 32
    assert fitting(17, ()) == 17


# ------------------------------------------------------------------ batches


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor], ids=lambda kind: kind.__name__)
def test_lists_arrays_and_tensors_are_padded_alike(kind):
    batch = pad("ids", [kind([1, 2, 3]), kind([4])], 9, (2, 4, 8))
    assert batch.tolist() == [[1, 2, 3, 9], [4, 9, 9, 9]]
    assert batch.dtype is torch.int64


def test_without_buckets_a_batch_is_as_long_as_its_longest_item():
    assert pad("ids", [[1, 2, 3], [4]], 0).shape == (2, 3)


def test_further_dimensions_are_kept():
    frames = [np.ones((2, 5), np.float32), np.ones((3, 5), np.float32)]
    batch = pad("frames", frames, -1, (4,))
    assert batch.shape == (2, 4, 5)
    assert batch.dtype is torch.float32
    assert batch[:, :, 0].tolist() == [[1, 1, -1, -1], [1, 1, 1, -1]]


def test_an_empty_item_does_not_change_the_others():
    batch = pad("ids", [[], [4, 5]], 0)
    assert batch.tolist() == [[0, 0], [4, 5]]
    assert batch.dtype is torch.int64


def test_whole_and_other_numbers_in_one_batch_stay_what_they_are():
    assert pad("values", [[1], [0.5]], 0).tolist() == [[1.0], [0.5]]
    assert stack("value", [1, 0.5]).tolist() == [1.0, 0.5]


@pytest.mark.parametrize("value", [3, 0.5, True, [1, 2], np.ones((2, 2), np.uint8)], ids=repr)
def test_what_has_one_shape_is_stacked(value):
    batch = stack("value", [value, value])
    assert batch.shape == (2, *np.shape(value))
    assert batch[1].tolist() == np.asarray(value).tolist()


def test_several_shapes_are_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"'ids' has several shapes .* name it in `padding`"):
        stack("ids", [[1, 2], [3]])


@pytest.mark.parametrize("value", ["text", b"bytes", None, {"a": 1}], ids=repr)
def test_what_is_no_number_is_refused_with_the_fix(value):
    with pytest.raises(TypeError, match="begin its name with an underscore"):
        stack("note", [value])


def test_an_item_beyond_the_last_bucket_is_named():
    with pytest.raises(
        ItemError, match=r"feature 'ids', 9, exceeds the largest bucket, 8"
    ) as raised:
        pad("ids", [[1], [1] * 9, [2]], 0, (4, 8))
    assert raised.value.index == 1


def test_an_item_can_be_made_longer_as_a_whole():
    item = {"ids": [1, 2], "mask": np.ones(2, np.int64), "place": 1, "_text": "a b"}
    longer = lengthen(item, {"ids": 7, "mask": 0, "absent": 0}, 4)
    assert longer["ids"].tolist() == [1, 2, 7, 7]
    assert longer["mask"].tolist() == [1, 1, 0, 0]
    assert (longer["place"], longer["_text"]) == (1, "a b")
    assert (length_of(item, {"ids": 7}), length_of(longer, {"ids": 7})) == (2, 4)
    assert length_of(item, {}) == 0
