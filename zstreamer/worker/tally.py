"""What a worker's batches were like: how many, how large, why no larger, how busy the model was.

Counts since the worker's start; who looks twice has the figures of the time between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MAX_WORDS = 200
"""Characters that are kept of how the model's process ended the last time."""


class Tally:
    """Counts of one worker; the owner says when a batch begins and ends.

    Attributes:
        batches, items: that have begun.
        closed: batches by why they were no larger, see `zstreamer.batching.WHY`.
        sizes: batches by their size, rounded up to a power of two.
        cost, padded: of items in batches, and what it is with padding.
        busy: seconds in which a batch ran.
        failed: items that were answered with an error.
        deaths: how often the model's process has ended, and `death` how the last time.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.items = 0
        self.closed: Counter[str] = Counter()
        self.sizes: Counter[int] = Counter()
        self.cost = self.padded = 0.0
        self.busy = 0.0
        self.failed = 0
        self.deaths = 0
        self.death = ""
        self._since: float | None = None

    def begun(self, now: float, why: str, costs: Sequence[float]) -> None:
        """A batch begins; costs: of its items, 0 where the model does not say."""
        if not costs:
            return
        self.ended(now)
        self._since = now
        self.batches += 1
        self.items += len(costs)
        self.closed[why] += 1
        self.sizes[1 << (len(costs) - 1).bit_length()] += 1
        if costs[0]:
            self.cost += sum(costs)
            self.padded += max(costs) * len(costs)

    def ended(self, now: float) -> None:
        """The batch that begun last has ended, and no other has begun."""
        if self._since is not None:
            self.busy += max(0.0, now - self._since)
            self._since = None

    def gone(self, how: str) -> None:
        """The model's process has ended."""
        self._since = None
        self.deaths += 1
        self.death = how[-MAX_WORDS:]

    def facts(self, now: float) -> dict[str, object]:
        """Return the counts as plain values."""
        running = now - self._since if self._since is not None else 0.0
        return {
            "batches": self.batches,
            "items": self.items,
            "closed": dict(self.closed),
            "sizes": {str(size): count for size, count in sorted(self.sizes.items())},
            "cost": self.cost,
            "padded": self.padded,
            "busy": self.busy + running,
            "failed": self.failed,
            "deaths": self.deaths,
            "death": self.death,
        }
