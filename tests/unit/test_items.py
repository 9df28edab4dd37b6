"""What a call takes as its items."""

from collections import UserDict, UserList, deque
from typing import Any

import numpy as np
import pytest

from tests.helpers import models
from zstreamer import ThreadedStreamer
from zstreamer.client.items import listed


class Table:
    """Counts its rows, and gives its columns."""

    def __len__(self):
        return 2

    def __iter__(self):
        return iter("abc")


@pytest.mark.parametrize(
    "items",
    [
        [1, 2],
        (1, 2),
        deque([1, 2]),
        range(1, 3),
        {1: 0, 2: 0}.keys(),
        {0: 1, 3: 2}.values(),
        UserList([1, 2]),
        np.array([1, 2]),
    ],
)
def test_whatever_holds_items_in_an_order_will_do(items):
    assert list(listed(items)) == [1, 2]
    with ThreadedStreamer(models.double, 8) as streamer:
        assert streamer.predict(items) == [2, 4]


def test_each_row_of_an_array_is_an_item():
    rows: Any = listed(np.arange(6).reshape(2, 3))
    assert [row.tolist() for row in rows] == [[0, 1, 2], [3, 4, 5]]
    assert listed({"a": 1}.items()) == [("a", 1)]
    assert listed(np.zeros((0, 3))) == []


def test_each_row_of_a_tensor_is_an_item():
    torch = pytest.importorskip("torch")
    rows: Any = listed(torch.arange(6).reshape(2, 3))
    assert [row.tolist() for row in rows] == [[0, 1, 2], [3, 4, 5]]

    def sums(batch: list[Any]) -> list[object]:
        return [int(row.sum()) for row in batch]

    with ThreadedStreamer(sums, 8) as streamer:
        assert streamer.predict(torch.ones(3, 2)) == [2, 2, 2]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ("text", r"not str; wrap it: \[item\]"),
        (np.str_("text"), r"wrap it: \[item\]"),
        (b"bytes", r"wrap it: \[item\]"),
        (bytearray(b"x"), r"wrap it: \[item\]"),
        ({"a": 1}, r"not dict; wrap it: \[item\]"),
        (UserDict(a=1), r"wrap it: \[item\]"),
        (5, r"not int; wrap it: \[item\]"),
        (None, r"not NoneType; wrap it: \[item\]"),
        (np.array(5), r"wrap it: \[item\]"),
        ({1, 2}, "not set, which has no order"),
        (frozenset((1, 2)), "which has no order"),
        (iter([1]), r"make it one: list\(items\)"),
        (Table(), "2 items by its length, and gives 3"),
    ],
)
def test_one_item_and_what_has_no_order_are_refused_with_what_to_do(items, words):
    with pytest.raises(TypeError, match=words):
        listed(items)
