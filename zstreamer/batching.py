"""Which waiting items form the next batch, and when. Pure: told the time, it decides.

Greedy by default: a free model with anything waiting runs up to ``batch_size`` at once, and
what arrives meanwhile is the next batch. That adds no delay at low load and fills batches at
high load (Inoue, arXiv 1912.06322). It holds only for callers who are about to return: see
`zstreamer.returns`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

from zstreamer.returns import Returns

WHY = ("full", "all", "hold", "cost", "target", "alone")
"""Why a batch is no larger: batch_size; nothing more waits; nothing more after a hold; the most
cost of a batch; the latency target; its items must run apart from others."""

FULL = ("full", "cost", "target")
"""Those of a batch that cannot grow any more, whatever comes: it need not wait for its turn."""

DECAY = 0.97
"""What one batch leaves of the weight of those before it: the last 30 or so count."""


class BatchTime:
    """T(n) = beta + alpha·n in seconds, by least squares over recent batches."""

    def __init__(self) -> None:
        self.beta = 0.0
        self.alpha = 0.0
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)

    def observe(self, items: int, seconds: float) -> None:
        """A batch of this many items (at least one) took this long."""
        w, n, t, nn, nt = (DECAY * each for each in self._sums)
        w, n, t = w + 1, n + items, t + seconds
        nn, nt = nn + items * items, nt + items * seconds
        self._sums = (w, n, t, nn, nt)
        spread = nn / w - (n / w) ** 2
        if spread > 0.25:
            alpha = (nt / w - n * t / w**2) / spread
            self.alpha = min(max(alpha, 0.0), t / n)
        else:
            # All batches alike: the line through their mean cannot be told. Keep the slope that
            # was known, as far as the mean bears it; none where none was, since a slope too
            # steep would have a broker refuse work that larger batches could well bear.
            self.alpha = min(self.alpha, t / n)
        self.beta = max(0.0, (t - self.alpha * n) / w)

    def __call__(self, items: int) -> float:
        """Return the seconds that a batch of this many items is expected to take."""
        return self.beta + self.alpha * items


class Waiting(Protocol):
    """What the batcher needs to know of an item.

    Attributes:
        id: unique among the items of one batcher.
        arrived: monotonic seconds.
        deadline: monotonic seconds at which its budget ends.
        cost: what it costs to run, where the model says.
    """

    id: int
    arrived: float
    cost: float

    @property
    def deadline(self) -> float:
        """See above."""


Item = TypeVar("Item", bound=Waiting)


@dataclass(frozen=True)
class Plan(Generic[Item]):
    """The batch to run now; where it is empty, look again at ``hold_until`` (monotonic seconds,
    None: not before the next arrival). ``why`` says what kept it from being larger.
    """

    items: Sequence[Item]
    hold_until: float | None = None
    alone: bool = False
    why: str = ""


class Batcher(Generic[Item]):
    """The items that wait for one model.

    Args:
        batch_size: most items of a batch.
        max_latency: longest hold of a free model for a fuller batch, in seconds; 0 never holds.
        max_cost: most Σcost of a batch, each item counted as the dearest of its batch
            (padding is paid for too); None for no limit.
        time: the model's batch time, observed by the owner.
        latency_target: seconds in which two batches are to be done, the one that an item waits
            for and its own; None for no such limit.
    """

    def __init__(
        self,
        batch_size: int,
        max_latency: float,
        max_cost: float | None,
        time: BatchTime,
        latency_target: float | None = None,
    ) -> None:
        self._batch_size = batch_size
        self._latency_target = latency_target
        self._max_latency = max_latency
        self._max_cost = max_cost
        self._time = time
        self._items: dict[int, Item] = {}
        self._groups: deque[list[Item]] = deque()
        self._returns = Returns()
        self._held = False
        self._more: bool | None = None
        self._more_after = False

    def __len__(self) -> int:
        return len(self._items) + sum(map(len, self._groups))

    @property
    def batch_size(self) -> int:
        """Most items of a batch, as far as the latency target admits; at least one."""
        if self._latency_target is None or not self._time.alpha:
            return self._batch_size
        fit = (self._latency_target / 2 - self._time.beta) / self._time.alpha
        return max(1, min(self._batch_size, int(fit)))

    def add(self, now: float, items: Sequence[Item]) -> None:
        """Items have arrived together."""
        self._items.update((item.id, item) for item in items)
        self._returns.came(now, len(items))

    def told(self, more: bool | None) -> None:
        """The broker says whether more will follow at once; None where it does not know.

        What follows a batch that is to begin, before it has, is for the one after it.
        """
        self._more_after = bool(more and self._more is False and self._items)
        if not self._more_after:
            self._more = more

    def ended(self, now: float, items: int) -> None:
        """A batch of so many items has ended, and its callers are being answered."""
        self._returns.answered(now, items, self._time.beta)

    def add_group(self, items: Iterable[Item]) -> None:
        """Items that are to run as one batch of their own have arrived."""
        self._groups.append(list(items))

    def begun(self, ids: Iterable[int]) -> None:
        """A batch of these has begun."""
        self.remove(ids)
        if self._more_after:
            self._more, self._more_after = True, False

    def remove(self, ids: Iterable[int]) -> None:
        """These do not wait any more: they run, or are no longer wanted."""
        gone = set(ids)
        self._held = False
        for id in gone:
            self._items.pop(id, None)
        if self._groups:
            groups = ([i for i in group if i.id not in gone] for group in self._groups)
            self._groups = deque(group for group in groups if group)

    def clear(self) -> None:
        """Forget everything that waits."""
        self._items.clear()
        self._groups.clear()

    def next(self, now: float, running: int) -> Plan[Item]:
        """Return what the model should run next.

        Args:
            now: monotonic seconds.
            running: items of the batch that it runs now; the plan is then for when that ends, and
                empty where those answered then should be waited for. 0 where the model is free.
        """
        if self._groups:
            return Plan(self._groups[0], alone=True, why="alone")
        if not self._items:
            return Plan(())
        batch = self._batch()
        if self._max_latency and len(batch) == len(self._items) < self.batch_size:
            until = self._hold(running)
            if until is not None and (running or until > now):
                self._held = True
                return Plan((), None if running else until)
        return Plan(batch, why=self._why(batch))

    def _why(self, batch: Sequence[Item]) -> str:
        """Say why no further item is in this batch: one of `WHY`."""
        if len(batch) >= self._batch_size:
            return "full"
        if len(batch) == len(self._items):
            return "hold" if self._held else "all"
        return "target" if len(batch) >= self.batch_size else "cost"

    def _hold(self, running: int) -> float | None:
        """Return until when to wait for callers who are about to return; None for not at all."""
        items, until, ended = self.batch_size, math.inf, self._returns.ended
        if self._more is None:
            beta, alpha = self._time.beta, self._time.alpha
            hold = self._returns.hold(len(self._items), running, items, beta, alpha)
            if hold is None:
                return None
            items, until = hold.items, ended + hold.until
        elif not self._more:
            return None
        oldest = next(iter(self._items.values())).arrived
        in_time = min(item.deadline for item in self._items.values()) - self._time(items)
        return min(until, max(ended, oldest) + self._max_latency, in_time)

    def _batch(self) -> list[Item]:
        if self._max_cost is None and not next(iter(self._items.values())).cost:
            return list(islice(self._items.values(), self.batch_size))
        return self._alike()

    def _alike(self) -> list[Item]:
        """Return the oldest item and those most like it in cost, so that padding is small."""
        ordered = sorted(self._items.values(), key=lambda item: item.cost)
        oldest = next(iter(self._items.values()))
        low = high = ordered.index(oldest)
        while high - low + 1 < min(self.batch_size, len(ordered)):
            down = oldest.cost - ordered[low - 1].cost if low else float("inf")
            up = ordered[high + 1].cost - oldest.cost if high + 1 < len(ordered) else float("inf")
            if down <= up:
                low -= 1
            else:
                high += 1
            if self._max_cost and ordered[high].cost * (high - low + 1) > self._max_cost:
                low, high = (low + 1, high) if down <= up else (low, high - 1)
                break
        return ordered[low : high + 1]
