"""The rate that callers of one worker can reach at best: what the formula of holding gives.

Callers who return make cycles: a batch of s runs, and then 2·s - C of those whom it answered must
be back before s are there again (C - s have waited meanwhile). With the way back w(k) of k items

    rate = s / (T(s) + w(2·s - C))         greedy: s = C / 2, and nobody is waited for
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.bench.sleeper import Batch

BATCH = 64


@dataclass(frozen=True)
class Model:
    """Takes ``beta + alpha * n`` seconds for n items."""

    beta: float
    alpha: float

    def __call__(self, items: float) -> float:
        return self.beta + self.alpha * items

    @property
    def capacity(self) -> float:
        """Items a second in full batches."""
        return BATCH / self(BATCH)

    def __str__(self) -> str:
        return f"{1e3 * self.beta:g} ms + {1e6 * self.alpha:g} µs"


def best_rate(callers: int, model: Model, back: Callable[[int], float], planned: float) -> float:
    """Return the best rate of a closed loop, in items a second.

    Args:
        callers: who ask again as soon as they are answered.
        model: that they share.
        back: the seconds from a batch's end until so many of those answered run again.
        planned: the same where enough have waited meanwhile.
    """
    best = 0.0
    for size in range(-(-callers // 2), callers + 1):
        s = min(size, BATCH)
        awaited = 2 * s - callers
        gap = back(awaited) if awaited > 0 else planned
        best = max(best, s / (model(s) + gap))
    return best


class WayBack:
    """The way back of those answered, as batches of one worker show it.

    Attributes:
        seconds: from the end of a batch of so many callers, who were all of them, to the begin of
            the next one, which has them all again; the median.
    """

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self._planned: list[float] = []
        self._late: list[float] = []

    def saw(
        self, callers: int, model: Model, held: Sequence[Batch], greedy: Sequence[Batch]
    ) -> None:
        """So many callers, no more than a batch, had these batches."""
        gaps = _gaps(held, callers)
        if gaps:
            self.seconds[callers] = statistics.median(gaps)
        self._planned += _gaps(greedy)
        self._late += [batch.end - batch.begin - model(batch.items) for batch in greedy]

    def best_rate(self, callers: int, model: Model) -> float:
        """Return what the formula gives with it, in items a second; 0 where nothing is known."""
        if not self.seconds or not self._planned:
            return 0.0
        late = statistics.median(self._late)
        really = Model(model.beta + late, model.alpha)
        return best_rate(callers, really, line(self.seconds), statistics.median(self._planned))


def _gaps(batches: Iterable[Batch], items: int | None = None) -> list[float]:
    """Return the seconds between batches that follow each other, all of so many items."""
    return [
        after.begin - before.end
        for before, after in pairwise(sorted(batches))
        if items is None or before.items == after.items == items
    ]


def line(known: Mapping[int, float]) -> Callable[[int], float]:
    """Return the way back as a function of how many return, from the seconds known for some."""
    if len(known) == 1:
        [seconds] = known.values()
        return lambda items: seconds
    slope, first = statistics.linear_regression(list(known), list(known.values()))
    slope = max(0.0, slope)
    return lambda items: max(0.0, first) + slope * items
