"""What the batches of one model were like, from what its workers tell when they are asked. Pure.

A worker tells counts since its own start. The difference to what it told before is added here, so
that the sums go on when workers come and go. What a worker did before its session's first answer is
not in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from zstreamer.batching import WHY
from zstreamer.histogram import SIZES, Sizes

Facts = Mapping[str, object]
"""What a worker has told, see `zstreamer.broker.facts`."""


class Batches:
    """Counts of one model, which only grow.

    Attributes:
        sizes: items of each batch.
        closed: batches by why they were no larger, see `zstreamer.batching.WHY`.
        cost, padded: of items in batches, and what it is with padding.
    """

    __slots__ = ("closed", "cost", "padded", "sizes")

    def __init__(self) -> None:
        self.sizes = Sizes()
        self.closed: Counter[str] = Counter()
        self.cost = self.padded = 0.0

    def told(self, before: Facts, now: Facts) -> None:
        """A worker has told its counts.

        Args:
            before: what it told the last time in this session; empty for nothing.
            now: what it tells now.
        """
        if not before:
            return
        for why in WHY:
            self.closed[why] += int(_more(before, now, "closed", why))
        for power in range(len(SIZES)):
            self.sizes.counts[power] += int(_more(before, now, "sizes", str(1 << power)))
        self.sizes.sum += int(_more(before, now, "items"))
        self.cost += _more(before, now, "cost")
        self.padded += _more(before, now, "padded")


def _more(before: Facts, now: Facts, *path: str) -> float:
    """Return by how much a number has grown; 0 where it was not told, or is smaller now."""
    late, early = _number(now, path), _number(before, path)
    return max(0.0, late - early)


def _number(facts: Facts, path: tuple[str, ...]) -> float:
    found: object = facts
    for key in path:
        found = found.get(key, 0) if isinstance(found, Mapping) else 0
    return found if isinstance(found, int | float) else 0
