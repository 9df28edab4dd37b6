"""Which of several workers gathers the next batch of callers who return, and until when. Pure.

A worker sees only what comes to itself. With several, those that it has answered may be given to
another, so it learns that nobody returns, starts with the first who comes, and all callers pay for
two batches. The broker sees all arrivals, so it learns the way back for the model as a whole
(`zstreamer.returns`), and has workers gather: items go to one free worker, with the word that more
are coming, until it has its share of all callers or nobody else is expected.

    C callers, n workers: each is to have C / n, or as many of them as the best cycle waits for
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from zstreamer.broker import dispatch
from zstreamer.returns import PATIENCE, Returns

TOGETHER = 1 / 8
"""Of β: ends of batches that are so close are one, as long as the way back is not known."""

FEWEST = 2
"""Workers from which on they gather."""

ALIKE = 2.0
"""Times as long as the fastest worker's batches that the slowest's may take: equal shares suit
workers that are alike, and others are given what they finish earliest."""


class Gatherer(dispatch.Candidate, Protocol):
    """What is needed to know of a worker, besides what any dispatch does.

    Attributes:
        running: items that it is known to have begun.
        assigned: items that it has and has not begun.
        gathers: it was told that more are coming.
        goes: it was told that none are, and has not said since that it has begun.
        max_latency: seconds for which it may be told to hold its batch; 0 for never.
    """

    gathers: bool
    goes: bool
    max_latency: float

    @property
    def running(self) -> Sequence[object] | set[int]:
        """See above."""

    @property
    def assigned(self) -> int:
        """See above."""


AnyGatherer = TypeVar("AnyGatherer", bound=Gatherer)


class Share(NamedTuple, Generic[AnyGatherer]):
    """Items for a worker; ``more``: others will follow before its batch is to begin."""

    worker: AnyGatherer
    items: int
    more: bool


class Gathering:
    """The callers of one model with several workers.

    Attributes:
        look_at: monotonic seconds at which `shares` is to be asked again although nothing came.
    """

    def __init__(self) -> None:
        self.returns = Returns()
        self.look_at = math.inf

    @property
    def bursts(self) -> bool:
        """Whether callers return in bursts; where they do not, `shares` is None."""
        return self.returns.bursts

    def came(self, now: float, items: int) -> None:
        """New items have arrived together."""
        self.returns.came(now, items)

    def ended(self, now: float, items: int, beta: float) -> None:
        """A worker has answered so many items, perhaps none."""
        if not items:
            return
        if self.returns.awaited and now - self.returns.ended < self._together(beta):
            self.returns.also_answered(items)
        else:
            self.returns.answered(now, items, beta)

    def _together(self, beta: float) -> float:
        """Return the seconds between two ends of batches that are one for the callers."""
        known = self.returns.longest
        return known if known < math.inf else TOGETHER * beta

    def shares(
        self, now: float, queued: int, out: int, workers: Sequence[AnyGatherer]
    ) -> list[Share[AnyGatherer]] | None:
        """Return what each worker is to be given or told; None where none is to gather.

        Args:
            now: monotonic seconds.
            queued: items that wait for a worker.
            out: items that workers have.
            workers: those that may be given items.
        """
        self.look_at = math.inf
        returns = self.returns
        target = self._target(queued + out, workers)
        if not target:
            return None
        expected = returns.expected
        longest = min(w.max_latency for w in workers)
        free: list[AnyGatherer] = []
        busy: list[AnyGatherer] = []
        for worker in workers:
            (free if is_free(worker) else busy).append(worker)
        free.sort(key=lambda w: (-w.assigned, w.used))
        until = returns.ended + min(PATIENCE * returns.longest, longest)
        over = expected <= 0 or now >= until
        found = []
        for worker in free:
            take = min(queued, max(0, target - worker.assigned), worker.room)
            queued -= take
            held = worker.assigned + take
            if held and (held >= target or over):
                found.append(Share(worker, take, more=False))
            elif take:
                found.append(Share(worker, take, more=True))
            if held and held < target and not over:
                self.look_at = until
        if queued:  # those that are free have their share, and go
            more = dispatch.earliest(now, busy or workers, queued)
            found += [Share(worker, items, bool(busy)) for worker, items in more]
        return found

    def _target(self, items: int, workers: Sequence[Gatherer]) -> int:
        """Return the items that each worker is to have before it begins; 0 where none is to gather.

        items: that wait for a worker, or that workers have.
        """
        returns = self.returns
        if len(workers) < FEWEST or not returns.bursts or not all(w.max_latency for w in workers):
            return 0
        most = min(w.batch_size for w in workers)
        times = [w.beta + w.alpha * most for w in workers]
        if max(times) > ALIKE * min(times):
            return 0
        callers = (items + returns.expected) / len(workers)
        size = returns.best(callers, most, workers[0].beta, workers[0].alpha)
        return max(1, min(int(size + 0.5), most)) if size else 0


def is_free(worker: Gatherer) -> bool:
    """Whether its model begins no batch until it is told to, or given something."""
    if worker.running:
        return False
    return not (worker.assigned and worker.goes)
