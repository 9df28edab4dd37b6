"""A model that costs no CPU, as an accelerator looks to its host, and the diary that it keeps.

It sleeps β + α·n and writes down when each batch really began and ended: a sleep is late by a
tenth of a millisecond, on a busy machine by more, and that is the model's time and not ours.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.others import models
from zstreamer import ManagedModel

ENTRY = struct.Struct("<ddI")
"""Monotonic seconds of begin and end, which all processes of a machine share, and the items."""


class Batch(NamedTuple):
    """One predict: monotonic seconds, and its number of items."""

    begin: float
    end: float
    items: int


class Sleeper(ManagedModel):
    """Answers each item with the seconds that its batch took."""

    def init_model(self, beta: float, alpha: float, folder: str | None = None) -> None:
        """Take so long for a batch of n items: beta + alpha · n seconds.

        folder: where to keep the diary; None for none.
        """
        self.beta = beta
        self.alpha = alpha
        path = os.devnull if folder is None else Path(folder, f"{os.getpid()}.batches")
        self._diary = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def predict(self, batch: list[Any]) -> list[Any]:
        begin = time.monotonic()
        due = begin + self.beta + self.alpha * len(batch)
        while (left := due - time.monotonic()) > 0:
            time.sleep(left)
        end = time.monotonic()
        os.write(self._diary, ENTRY.pack(begin, end, len(batch)))
        return [end - begin] * len(batch)


class Answerer(Sleeper):
    """The same for texts, each with its own answer."""

    def predict(self, batch: list[str]) -> list[str]:
        super().predict(batch)
        return [models.answer(text) for text in batch]


def diary(folder: str | Path) -> list[Batch]:
    """All batches of the sleepers that write into this folder."""
    entries: list[Batch] = []
    for path in Path(folder).glob("*.batches"):
        data = path.read_bytes()
        whole = len(data) - len(data) % ENTRY.size  # the last may just be being written
        entries += (Batch(*each) for each in ENTRY.iter_unpack(data[:whole]))
    return entries


def busy(batches: Iterable[Batch], start: float, end: float, workers: int) -> float:
    """The share of the time from start to end that so many workers spent in predict."""
    inside = sum(max(0.0, min(each.end, end) - max(each.begin, start)) for each in batches)
    return inside / (end - start) / workers


def mean_batch(batches: Iterable[Batch], start: float, end: float) -> float:
    """How many items a batch that began between start and end had; 0 where none did."""
    sizes = [each.items for each in batches if start <= each.begin < end]
    return sum(sizes) / len(sizes) if sizes else 0.0


def longer(batches: Iterable[Batch], start: float, end: float, beta: float, alpha: float) -> float:
    """What those batches took beyond what they were to take, as a share of that."""
    inside = [each for each in batches if start <= each.begin < end]
    told = sum(beta + alpha * each.items for each in inside)
    return sum(each.end - each.begin for each in inside) / told - 1 if told else 0.0
