"""What became of a model's items, and how long they took: counts since the broker's start."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

STEPS = 4
"""Steps of a histogram within which a time doubles: each is 19 % longer than the one before."""

LEAST = 1e-4
"""Seconds of the first step."""

MOST = 120
"""Steps of a histogram at most; the last is for all that took longer, some 30 hours."""


class Figures:
    """Counts of one model.

    Attributes:
        arrived: items that were admitted.
        answered: items that a worker has answered, with an output or an error.
        failed: those of them that were answered with an error.
        late: items whose budget ended before they ran.
        refused: items that were not admitted.
        seconds: from the arrival of an item to its answer, summed over all that were answered.
        times: the same as a histogram; see `step`.
    """

    def __init__(self) -> None:
        self.arrived = 0
        self.answered = 0
        self.failed = 0
        self.late = 0
        self.refused = 0
        self.seconds = 0.0
        self.times: Counter[int] = Counter()

    def answer(self, seconds: float, items: int) -> None:
        """So many items were answered after so many seconds."""
        self.answered += items
        self.seconds += seconds * items
        self.times[step(seconds)] += items

    def plain(self) -> dict[str, object]:
        """Return the counts as plain values."""
        return {
            "arrived": self.arrived,
            "answered": self.answered,
            "failed": self.failed,
            "late": self.late,
            "refused": self.refused,
            "seconds": self.seconds,
        }


def step(seconds: float) -> int:
    """Return the number of the histogram's step that a time belongs to."""
    if seconds <= LEAST:
        return 0
    return min(MOST, math.ceil(STEPS * math.log2(seconds / LEAST)))


def percentile(times: Mapping[int, int], share: float) -> float:
    """Return the seconds within which this share of the items was answered; 0 where none was.

    Args:
        times: items by `step`.
        share: from 0 to 1.
    """
    left = share * sum(times.values())
    for number, items in sorted(times.items()):
        left -= items
        if left <= 0:
            return float(LEAST * 2.0 ** (number / STEPS))
    return 0.0
