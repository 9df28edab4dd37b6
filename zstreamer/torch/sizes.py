"""Batch sizes to round up to, chosen from those that have been seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zstreamer.torch.padding import buckets, fitting

LEARN = 200
"""Batches after which sizes are chosen, the first time and again."""

USUAL = 0.1
"""Share of batches of one size from which that size is a bucket: it then needs no padding."""

RARE = 0.01
"""Share of batches below which a bucket is not worth a program of its own."""

FADING = 2
"""Each choice divides the counts before it by this, so that another load is soon known."""


def chosen(seen: Counter[int]) -> tuple[int, ...]:
    """Return buckets for batches of these sizes; the largest of them is the last."""
    total = sum(seen.values())
    if not total:
        return ()
    largest = max(seen)
    grid = buckets(1, largest)
    held: Counter[int] = Counter()
    for size, count in seen.items():
        held[fitting(size, grid)] += count
    usual = {size for size, count in seen.items() if count >= USUAL * total}
    worth = {size for size, count in held.items() if count >= RARE * total}
    return tuple(sorted({*usual, *worth, largest}))


class Sizes:
    """The batch sizes of one model.

    Attributes:
        buckets: what to round up to; none until enough has been seen.
    """

    def __init__(self) -> None:
        self.buckets: Sequence[int] = ()
        self._seen: Counter[int] = Counter()
        self._count = 0

    def fit(self, size: int) -> int:
        """Return what a batch of this size is to be filled up to, and remember that it came."""
        self._seen[size] += 1
        self._count += 1
        if self._count % LEARN == 0:
            self.buckets = chosen(self._seen)
            self._seen = Counter({n: c // FADING for n, c in self._seen.items() if c >= FADING})
        if not self.buckets or size > self.buckets[-1]:
            return size
        return fitting(size, self.buckets)
