"""Batches that have been started on a device, and what is made of their outputs."""

from __future__ import annotations

import contextlib
import itertools
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch

from zstreamer.model import ItemError
from zstreamer.torch.streams import Fetched
from zstreamer.torch.tensors import rows

Features: TypeAlias = Mapping[str, object]
"""What an item is to the model: numbers, lists of numbers, arrays or CPU tensors, by name. A lone
one of them is the feature "input"."""


@contextlib.contextmanager
def naming(start: int) -> Iterator[None]:
    """Run a part of a batch: what it raises of an item names its place in the whole."""
    try:
        yield
    except ItemError as error:
        raise ItemError(start + error.index, str(error)) from error
    except torch.cuda.OutOfMemoryError as error:
        free(error)
        raise


class Batch:
    """A batch whose outputs are on their way to the CPU.

    Args:
        fetched: the outputs.
        items: the features of its items.
        count: how many rows the outputs must have: the items, and what fills them up.
        finish: makes an answer of a row.
    """

    def __init__(
        self,
        fetched: Fetched,
        items: Sequence[Features],
        count: int,
        finish: Callable[[object, object], object],
    ) -> None:
        self._fetched, self._items, self._count, self._finish = fetched, items, count, finish

    def wait(self) -> None:
        """Return when the outputs are here."""
        self._fetched.wait()

    @torch.inference_mode()
    def outputs(self) -> list[object]:
        """Return an answer, or an exception, for each item."""
        self._fetched.wait()
        found = rows(self._fetched.outputs(), self._count)
        own = itertools.islice(found, len(self._items))
        return [self._finish(*each) for each in zip(own, self._items, strict=True)]


class Parts:
    """A batch that runs in several; see `zstreamer.model.Pending`."""

    def __init__(self, parts: Sequence[tuple[int, Batch]]) -> None:
        self._parts = parts

    def wait(self) -> None:
        """Return when the device is done with all of them."""
        for _, part in self._parts:
            part.wait()

    def outputs(self) -> list[object]:
        """Return the answers of all of them."""
        answers: list[object] = []
        for start, part in self._parts:
            with naming(start):
                answers += part.outputs()
        return answers


def free(error: BaseException) -> None:
    """Give back what a batch that did not fit has taken, so that its halves find room."""
    traceback.clear_frames(error.__traceback__)  # their variables hold its tensors
    torch.cuda.empty_cache()
