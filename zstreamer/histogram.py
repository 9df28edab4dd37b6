"""Counts of values by size, cheap enough for hot paths. Pure: no locks, no library.

One thread counts. Another may read at any time: what it reads is whole to the last observation or
two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

SECONDS: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0,
)  # fmt: skip
"""Upper bounds of times: from a trivial model to a call that used a long budget."""

TURNS: Final = (0.0002, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0)
"""Upper bounds of the time that one turn of a loop is busy."""

SIZES: Final = tuple(2.0**power for power in range(13))
"""Upper bounds of numbers of items: 1 to 4,096."""

_MOST: Final = 4096
_PLACES: Final = tuple((max(1, number) - 1).bit_length() for number in range(_MOST + 1))
"""By number, in which bucket of `SIZES` it lies."""


class Histogram:
    """How many values lie below each bound.

    Args:
        bounds: upper bounds, ascending; each bucket includes its own.

    Attributes:
        counts: values by bucket, not cumulative; the last bucket has no upper bound.
        sum: of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count a value so many times."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    def observe_all(self, values: Sequence[float]) -> None:
        """Count many values; what is below 0 counts as 0, as a clock may say by a rounding."""
        if not values:
            return
        bounds, counts = self.bounds, self.counts
        least, most = min(values), max(values)
        self.sum += max(0.0, sum(values))
        bucket = bisect_left(bounds, least)
        if bucket == bisect_left(bounds, most):  # those of one bundle have mostly waited alike
            counts[bucket] += len(values)
            return
        for value in values:
            counts[bisect_left(bounds, value)] += 1

    def add(self, other: Histogram) -> None:
        """Count everything that another one with the same bounds has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def quantile(self, share: float, before: Sequence[int] = ()) -> float:
        """Return below which value this share of the values lies, as far as the buckets tell.

        Args:
            share: from 0 to 1.
            before: `counts` at an earlier time; only what came since is looked at.
        """
        counts = [
            now - then
            for now, then in zip(self.counts, before or [0] * len(self.counts), strict=True)
        ]
        left, low = share * sum(counts), 0.0
        for bound, count in zip((*self.bounds, 2 * self.bounds[-1]), counts, strict=True):
            if count and left <= count:
                return low + (bound - low) * left / count
            left -= count
            low = bound
        return 0.0

    def buckets(self) -> list[tuple[str, float]]:
        """Return upper bounds and cumulative counts, as Prometheus has them."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(list(self.counts)), strict=True))


class Sizes:
    """A histogram of numbers of items, in powers of two: cheaper to count than any other.

    Attributes:
        counts: numbers by bucket: 1, 2, 4, 8, … are the upper bounds, the last one is open.
        sum: of all numbers.
    """

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(SIZES) + 1)
        self.sum = 0

    def observe(self, number: int) -> None:
        """Count a number; 0 counts as nothing."""
        if number:
            self.counts[_PLACES[number] if number <= _MOST else -1] += 1
            self.sum += number

    def add(self, other: Sizes) -> None:
        """Count everything that another one has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    @property
    def count(self) -> int:
        """How many numbers there were."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Return upper bounds and cumulative counts, as Prometheus has them."""
        names = [*(f"{bound:g}" for bound in SIZES), "+Inf"]
        return list(zip(names, accumulate(list(self.counts)), strict=True))
