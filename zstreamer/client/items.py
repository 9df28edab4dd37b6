"""What a call may be given: a list of items, or whatever else holds items in an order."""

from __future__ import annotations

from collections.abc import Collection, ItemsView, KeysView, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

Items: TypeAlias = Collection[object]

VIEWS = (KeysView, ValuesView, ItemsView)
"""Of these some are sets by type, but they have the order of their dict."""


def listed(items: Any) -> Sequence[object]:  # whatever a caller without type checks gives
    """Return the items of a call as a list or tuple.

    Args:
        items: a list, a tuple, a numpy array or a tensor (each row is an item), a deque, a view of
            a dict, or anything else that has a length and an order.

    Raises:
        TypeError: it is one item, such as a str, or has no order or no length. The message says
            what to do.
    """
    if isinstance(items, list | tuple):
        return items
    name = type(items).__name__
    if isinstance(items, str | bytes | bytearray | memoryview | Mapping):
        raise TypeError(f"items must be a list or tuple, not {name}; wrap it: [item]")
    if isinstance(items, AbstractSet) and not isinstance(items, VIEWS):
        raise TypeError(f"items must be a list or tuple, not {name}, which has no order")
    try:
        count, rows = len(items), list(items)
    except TypeError:  # a number, a generator, an array without dimensions
        fix = "make it one: list(items)" if hasattr(items, "__next__") else "wrap it: [item]"
        raise TypeError(f"items must be a list or tuple, not {name}; {fix}") from None
    if len(rows) != count:  # a table that gives its columns but counts its rows
        raise TypeError(
            f"items must be a list or tuple, not {name}: it has {count} items by its length, "
            f"and gives {len(rows)}; make it a list first"
        )
    return rows
