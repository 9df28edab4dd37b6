"""How callers return: what is learned of the arrivals after each batch, and what a hold is worth.

Callers that were just answered ask again, in a burst. Greedy batches split C such callers into two
cohorts that take turns, each waiting while the other's batch runs. A rule that holds until ``s``
items wait settles into a cycle: s are answered, C - s wait already, and 2·s - C of those answered
must come back first. With T(n) = β + α·n and the time w(q) in which the share q of those answered
has come back, the rate of that cycle is

    s / (T(s) + w((2·s - C) / s)),        greedy: s = C / 2, w = 0

By Little's law the latency of C callers is C / rate, so the best rate is the best latency too. For
all C at once it pays while w(1) < β. Comparing one hold with one greedy batch (the sum of waiting)
would keep two equal cohorts apart: both states are stable.

Arrivals that do not depend on answers show no burst after a batch's end, and then nothing is held.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

STEPS = 8
"""Points of the learned curve: the times in which 1/8, 2/8, … of those answered came back. It is
learned while answers wait to leave, so it must not take long."""

CYCLES = 9
"""Batches whose arrivals make the curve."""

LEAST_CYCLES = 3
"""Batches without which nothing is held."""

MISSES = 1
"""Of the batches remembered, those that may be slower than what the curve says."""

GAIN = 1.04
"""Rate of the best hold against greedy batches from which it is done."""

NEARLY = 0.98
"""Of the best rate, what is good enough for a shorter hold: a late one harms those who wait."""

MARGIN = 1.2
"""Times the slowest return remembered that the next may take and still be what was expected."""

SHARE = 0.9
"""Of the arrivals after a batch, those that come within the learned time where callers return."""

ODDS = 3.0
"""Logarithm of the odds for callers who return, against arrivals at any time, that a hold needs."""

MOST_ODDS = 8.0
LEAST_ODDS = -4.0
"""Between these the odds stay, so that a load that changes its kind is soon known for it."""

MOST_ARRIVALS = 2000
"""Arrivals after a batch of which the times are kept, once as many as were answered have come."""

FADING = 0.9
"""What a batch whose arrivals tell nothing leaves of the odds."""

IDLE = 4.0
"""Times β without an arrival after which a pause has come between: it tells nothing of returns."""

PATIENCE = 1.5
"""Times the slowest return remembered that a hold waits before it gives up."""


@dataclass(frozen=True)
class Hold:
    """A hold that is expected to pay.

    Attributes:
        items: run as soon as so many wait.
        until: seconds after the batch's end at which it has failed.
    """

    items: int
    until: float


@dataclass
class _Cycle:
    """What came between the ends of two batches: offsets in seconds, and items by then."""

    answered: int
    offsets: list[float]
    counts: list[int]

    def curve(self, limit: float) -> list[float]:
        """Return the seconds in which each share of those answered had come back.

        Infinite beyond ``limit``: later returns are as good as none.
        """
        times: list[float] = []
        answered = self.answered or 1
        for offset, count in zip(self.offsets, self.counts, strict=True):
            if offset > limit or len(times) == STEPS:
                break
            times += [offset] * (min(STEPS, count * STEPS // answered) - len(times))
        return times + [math.inf] * (STEPS - len(times))


class Returns:
    """What is known of the callers of one model."""

    def __init__(self) -> None:
        self._ended = -math.inf
        self._cycle: _Cycle | None = None
        self._curves: deque[list[float]] = deque(maxlen=CYCLES)
        self._usual: list[float] = []
        self._slowest: list[float] = []
        self._odds = 0.0

    @property
    def ended(self) -> float:
        """Monotonic seconds of the last batch's end."""
        return self._ended

    @property
    def bursts(self) -> bool:
        """Whether items come in a burst after a batch's end, rather than at any time."""
        return self._odds > ODDS

    @property
    def expected(self) -> int:
        """Items of those answered last that are still to come back within the learned time."""
        cycle = self._cycle
        if cycle is None:
            return 0
        back = cycle.answered * self._coming // STEPS
        return max(0, back - (cycle.counts[-1] if cycle.counts else 0))

    @property
    def awaited(self) -> bool:
        """Whether fewer have come than were answered."""
        cycle = self._cycle
        return cycle is not None and (cycle.counts[-1] if cycle.counts else 0) < cycle.answered

    @property
    def longest(self) -> float:
        """Seconds of the slowest return remembered; infinite where nobody returns."""
        coming = self._coming
        return self._slowest[coming - 1] if coming else math.inf

    @property
    def _coming(self) -> int:
        return sum(map(math.isfinite, self._usual))

    def came(self, now: float, items: int) -> None:
        """Items have arrived together."""
        cycle = self._cycle
        if cycle is None:
            return
        if len(cycle.counts) >= MOST_ARRIVALS and cycle.counts[-1] >= cycle.answered:
            cycle.counts[-1] += items  # a model that answers nothing must not fill the memory
        else:
            cycle.offsets.append(now - self._ended)
            cycle.counts.append(items + (cycle.counts[-1] if cycle.counts else 0))

    def answered(self, now: float, items: int, beta: float) -> None:
        """A batch of so many items has ended; no hold longer than ``beta`` seconds could pay."""
        if self._cycle is not None:
            self._learn(self._cycle, now - self._ended, beta)
        self._cycle = _Cycle(items, [], [])
        self._ended = now

    def also_answered(self, items: int) -> None:
        """Another batch has ended so soon after the last one that the two are one."""
        if self._cycle is not None:
            self._cycle.answered += items

    def best(self, callers: float, most: int, beta: float, alpha: float) -> float:
        """Return the batch size of the best cycle of so many callers of one worker.

        0 where no hold is expected to pay; the other arguments are those of `hold`.
        """
        if not (callers and beta and self._coming):
            return 0.0
        return self._best(callers, most, self._coming, beta, alpha)

    def hold(self, waiting: int, running: int, most: int, beta: float, alpha: float) -> Hold | None:
        """Return what to wait for once the model is free; None where nothing is expected to pay.

        Args:
            waiting: items that could run.
            running: items that the model runs now, 0 where it is free.
            most: items of the largest batch.
            beta: seconds of a batch that do not depend on its size.
            alpha: seconds that each item adds to a batch.
        """
        cycle = self._cycle
        if not self._usual or waiting >= most or not self.bursts:
            return None
        if running:
            answered, came = running, 0
        elif cycle is not None:
            answered, came = cycle.answered, cycle.counts[-1] if cycle.counts else 0
        else:
            return None
        coming = self._coming
        back = answered * coming // STEPS
        expected = back - came
        if expected <= 0:
            return None
        callers = waiting + expected
        size = self._best(callers, most, coming, beta, alpha)
        target = min(int(size + 0.5), callers, most)
        if target <= waiting:
            return None
        step = min(coming, -(-(came + target - waiting) * STEPS // answered))
        return Hold(target, PATIENCE * self._slowest[step - 1])

    def _best(self, callers: float, most: int, coming: int, beta: float, alpha: float) -> float:
        """Return the batch size of the best cycle, 0 where that is the greedy one."""
        n = min(most, callers / 2)
        greedy = n / (beta + alpha * n)
        rates: list[tuple[float, float]] = []
        for step in range(1, coming + 1):
            s = callers / (2 - step / STEPS)
            if s >= most:
                s = most
                step = max(1, math.ceil((2 - callers / s) * STEPS))
                if step > coming:
                    break
            rates.append((s / (beta + alpha * s + self._usual[step - 1]), s))
            if s == most:
                break
        best = max(rates)[0] if rates else 0.0
        if best < GAIN * greedy:
            return 0.0
        return next(s for rate, s in rates if rate >= NEARLY * best)

    def _learn(self, cycle: _Cycle, length: float, limit: float) -> None:
        curve = cycle.curve(limit)
        idle = curve[0] == math.inf and length > IDLE * limit
        self._weigh(cycle, length, idle)
        if idle:
            return
        self._curves.append(curve)
        if len(self._curves) < LEAST_CYCLES:
            return
        ordered = list(map(sorted, zip(*self._curves, strict=True)))
        misses = min(MISSES, len(self._curves) // 4)
        self._usual = [times[-1 - misses] for times in ordered]
        # Mostly the last is finite, and then it is the slowest.
        self._slowest = [times[-1] for times in ordered]
        if math.inf in self._slowest:
            finite = (reversed([t for t in times if t < math.inf]) for times in ordered)
            self._slowest = [next(times, math.inf) for times in finite]

    def _weigh(self, cycle: _Cycle, length: float, idle: bool) -> None:
        """Compare when items came with what the curve said before: a sequential ratio test.

        Arrivals at any time fall into the first ``w`` of ``length`` seconds with a probability of
        w / length; those of callers who return with that of the share that the curve knows of.
        """
        coming = self._coming
        if not coming or not cycle.offsets:
            return
        within = MARGIN * self._slowest[coming - 1]
        chance, share = within / length if length > within else 1.0, SHARE * coming / STEPS
        if chance >= share:
            self._odds *= FADING
            return
        inside = sum(offset <= within for offset in cycle.offsets)
        outside = 1 if idle else len(cycle.offsets) - inside  # a burst after a pause is one event
        self._odds += inside * math.log(share / max(chance, 0.01))
        self._odds += outside * math.log((1 - share) / (1 - chance))
        self._odds = min(MOST_ODDS, max(LEAST_ODDS, self._odds))
