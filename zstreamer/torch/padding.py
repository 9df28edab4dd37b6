"""Batches as tensors: items of several lengths in one, in a few sizes only.

A model that meets a new size is slow once (kernels are chosen, memory is laid out, and with
torch.compile a program is built), so sizes are rounded up to *buckets*, few enough to be run
through beforehand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zstreamer.model import ItemError

Array = npt.NDArray[np.generic]

INPUT = "input"
"""What the one feature is called of an item that is no mapping."""


def by_name(batch: Sequence[object]) -> list[Mapping[str, object]]:
    """Return the features of each item by name, where it may be a lone array, list or number.

    Raises:
        ItemError: an item is something else.
        ValueError: their names differ; those that begin with an underscore do not count.
    """
    items = [_named(index, item) for index, item in enumerate(batch)]
    for item in items:
        odd = item.keys() ^ items[0].keys()
        if odd and (names := sorted(name for name in odd if not name.startswith("_"))):
            raise ValueError(
                f"feature {names[0]!r} is not in all items of a batch: `prepare` must give all of "
                "them the same features"
            )
    return items


def _named(index: int, item: object) -> Mapping[str, object]:
    if isinstance(item, Mapping):
        return item
    if isinstance(item, np.ndarray | np.generic | Tensor | list | tuple | int | float):
        return {INPUT: item}
    raise ItemError(
        index,
        f"an item is {type(item).__name__}: the features that `prepare` returns are a mapping of "
        "names to arrays, or one array, list of numbers, tensor or number",
    )


def buckets(low: int, high: int) -> tuple[int, ...]:
    """Return powers of two and the middles between them, from ``low`` to ``high``, the last one.

    Padding then adds at most half to a length from ``low`` on, and less than a fifth on average:

        >>> buckets(16, 128)
        (16, 24, 32, 48, 64, 96, 128)

    For steps of one width a `range` will do: ``range(16, 513, 16)``.

    Raises:
        ValueError: not 1 <= low <= high.
    """
    if not 1 <= low <= high:
        raise ValueError(f"buckets go from 1 or more upwards, not from {low} to {high}")
    steps = [step for n in range(high.bit_length() + 1) for step in (2**n, 2**n * 3 // 2)]
    return (*(step for step in dict.fromkeys(steps) if low <= step < high), high)


def check_buckets(name: str, sizes: Sequence[int]) -> None:
    """Raise ValueError where these cannot be buckets; ``name`` is what the message calls them."""
    if any(size < 1 for size in sizes) or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"{name} must be whole numbers from 1 on, each once and ascending")


def fitting(size: int, sizes: Sequence[int]) -> int:
    """Return the smallest bucket that holds ``size``; ``size`` itself if there are none.

    Raises:
        ValueError: the largest bucket is smaller.
    """
    if not sizes:
        return size
    if size > sizes[-1]:
        raise ValueError(f"{size}, exceeds the largest bucket, {sizes[-1]}")
    return sizes[bisect_left(sizes, size)]


def stack(name: str, values: Sequence[object], pin: bool = False) -> Tensor:
    """Return one feature of a batch as a tensor of shape [items, *shape].

    Args:
        name: what errors call the feature.
        values: for each item a number, a list of numbers, an array or a CPU tensor, all of one
            shape. Integers, floats and booleans keep their dtype; Python's are int64 and float64.
        pin: put it into pinned memory, from which CUDA copies faster and in the background.

    Raises:
        ValueError: the shapes differ.
        TypeError: they are no numbers.
    """
    arrays = [np.asarray(value) for value in values]
    if any(array.shape != arrays[0].shape for array in arrays):
        raise ValueError(
            f"feature {name!r} has several shapes in one batch: name it in `padding`, or give "
            "all items one shape in `prepare`"
        )
    batch = _empty(name, (len(arrays), *arrays[0].shape), arrays, pin)
    np.stack(arrays, out=batch.numpy())
    return batch


def pad(
    name: str,
    values: Sequence[object],
    fill: float,
    sizes: Sequence[int] = (),
    pin: bool = False,
) -> Tensor:
    """Return one feature of a batch, padded to one length, as a tensor [items, length, *shape].

    Args:
        name: as for `stack`.
        values: as for `stack`, but their first dimension may differ.
        fill: what stands behind the end of a shorter item.
        sizes: the buckets for the length; without any it is that of the longest item.
        pin: as for `stack`.

    Raises:
        ItemError: an item is longer than the largest bucket.
        TypeError: they are no sequences of numbers.
    """
    arrays = [np.asarray(value) for value in values]
    lengths = [len(array) for array in arrays]
    try:
        shape = (len(arrays), fitting(max(lengths), sizes), *arrays[0].shape[1:])
    except ValueError as error:
        words = f"the length of feature {name!r}, {error}: cut it in `prepare`, or add a bucket"
        raise ItemError(lengths.index(max(lengths)), words) from error
    batch = _empty(name, shape, arrays, pin)
    for row, array in zip(batch.numpy(), arrays, strict=True):
        row[: len(array)] = array
        row[len(array) :] = fill
    return batch


def lengthen(
    features: Mapping[str, object], padding: Mapping[str, float], length: int
) -> dict[str, object]:
    """Return the features of one item as if it had this length, which is no less than its own."""
    longer = dict(features)
    for name in features.keys() & padding.keys():
        longer[name] = pad(name, [features[name]], padding[name], (length,))[0]
    return longer


def length_of(features: Mapping[str, object], padding: Mapping[str, float]) -> int:
    """Return the length of one item: that of its longest feature that can be padded, else 0."""
    padded = features.keys() & padding.keys()
    return max((len(np.asarray(features[name])) for name in padded), default=0)


def _empty(name: str, shape: tuple[int, ...], arrays: Sequence[Array], pin: bool) -> Tensor:
    """A tensor that numpy can fill, of a dtype that holds all of the arrays."""
    # An empty list has a dtype too, float64, which must not make floats of its neighbours' tokens.
    dtype = np.result_type(*({a.dtype for a in arrays if a.size} or {arrays[0].dtype}))
    try:
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
    except TypeError as error:
        raise TypeError(
            f"feature {name!r} is made of {dtype}, and only numbers can go into a batch; begin its "
            f"name with an underscore (_{name}) where it is meant for `finish` alone"
        ) from error
    return torch.empty(shape, dtype=kind, pin_memory=pin)
