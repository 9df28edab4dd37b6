"""How many workers the present load wants. Pure: told the time and the load, it says a number.

    arrivals, refused ones too ─> rate ─┐
    T(n) = β + α·n, batch size ─────────┼─> need ─> rises at once, falls after a calm ─> workers
    what waits beyond the target ───────┘

A worker that is free takes what waits, so its queue is empty and it is busy most of the time at any
load: neither queue length nor busy share says how much more it could do. Its batch time does. With
λ items a second on w workers, batches grow until they last T = β / (1 - α·λ/w), and an item waits
for the batch that runs and for its own: 2·T at most. So w must be at least

    λ·T(B) / (B·FULL)           so that batches of B, nearly full, keep up with λ
    λ·α / (1 - 2·β/L)           so that two batches fit into the target L

What waits beyond the target asks for more, for as long as it takes to clear. Workers that answer
less than T(n) says, as where encoding is the limit, are seen when all are busy and something waits;
and a queue that stays older than the target asks for one more after the other, whatever is known.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

FULL = 0.85
"""Of what full batches would answer, what a worker is expected to: arrivals are not even."""

SMOOTH, QUICK = 8.0, 1.5
"""Seconds over which arrivals are averaged: a burst that is shorter wants nobody new, unless what
waits is older than the target already."""

CLEAR = 5.0
"""Seconds in which what waits too long should be cleared by those that are wanted for it."""

CALM = 180.0
CALM_EXTRA = 20.0
"""Seconds for which a need is remembered: that of the rate, and that of what waits. A worker that
is sent away too early takes its start to come back."""

NARROW = 0.15
"""Of a worker, how far the need must have fallen below a number before that one is given up."""

IDLE = 300.0
"""Seconds without an arrival after which nobody is wanted."""

BUSY = 0.95
WEIGHT = 0.1
LEAST_YIELD = 0.2
"""When so many of the workers are busy and something waits, they answer all that they can; the
weight of one such look, and the least that is believed, as a share of what T(n) says."""

STUBBORN = 5.0
STEP = 10.0
"""Seconds for which the queue has been older than the target although it should not be, until one
more worker is wanted, and until another one is."""


class Load(NamedTuple):
    """What is known of a model at one moment.

    Attributes:
        arrived: items that have come since the start, refused ones too.
        answered: items that workers have answered since the start.
        queued: items that no worker has.
        age: seconds that the oldest of them has waited.
        workers: that are warm.
        busy: share of them that runs a batch.
        batch_size: the largest batch; 0 where not known.
        beta, alpha: seconds of a batch and of each item in it; 0 where not known.
    """

    arrived: int
    answered: int
    queued: int
    age: float
    workers: int
    busy: float
    batch_size: int
    beta: float
    alpha: float


class Wanted:
    """The number of workers that one model wants.

    Args:
        target: seconds in which an item is to be answered; None for twice the time that two full
            batches take, and at least half a second.

    Attributes:
        workers: the number.
        rate: items a second that arrive, smoothed.
    """

    def __init__(self, target: float | None = None) -> None:
        self.workers = 0
        self.rate = 0.0
        self._target = target
        self._quick_rate = 0.0
        self._at: float | None = None
        self._came_at = -math.inf
        self._arrived = 0
        self._answered = 0
        self._answer_rate = 0.0
        self._busy = 0.0
        self._speed = (0, 0.0, 0.0)
        self._yield = 1.0
        self._full_since = math.inf
        self._needs = _Highest(CALM)
        self._extras = _Highest(CALM_EXTRA)
        self._insist_at = math.inf

    def look(self, now: float, load: Load) -> None:
        """Bring the number up to date; called some times a second.

        Args:
            now: monotonic seconds.
            load: what is known now.
        """
        if self._at is None:
            self._at, self._arrived, self._answered = now, 0, load.answered
            self._came_at = now if load.arrived or load.workers else -math.inf
            return
        seconds = now - self._at
        if seconds <= 0:
            return
        self._at = now
        came, answered = load.arrived - self._arrived, load.answered - self._answered
        self._arrived, self._answered = load.arrived, load.answered
        weight = 1 - math.exp(-seconds / SMOOTH)
        self.rate += weight * (came / seconds - self.rate)
        self._quick_rate += (1 - math.exp(-seconds / QUICK)) * (came / seconds - self._quick_rate)
        self._busy += weight * (load.busy - self._busy)
        if came or load.queued:
            self._came_at = now
        if load.batch_size and load.beta + load.alpha > 0:
            self._speed = load.batch_size, load.beta, load.alpha
        self._answer_rate += weight * (answered / seconds - self._answer_rate)
        self._learn_yield(now, load)
        if now - self._came_at > IDLE:
            self.workers = 0
            self._needs.clear()
            self._extras.clear()
            return
        self._decide(now, load)

    def _decide(self, now: float, load: Load) -> None:
        need, extra = self._need(load)
        self._needs.add(now, math.ceil(need + NARROW))
        self._extras.add(now, extra)
        rising = math.ceil(need + extra - NARROW / 3)
        if self._insists(now, load):
            rising = max(rising, load.workers + 1)
            self._needs.add(now, rising)
        falling = math.ceil(self._needs.value + self._extras.value - NARROW / 3)
        self.workers = max(1, rising, min(self.workers, falling))

    def target(self) -> float:
        """Return the seconds in which an item is to be answered."""
        size, beta, alpha = self._speed
        return self._target or max(0.5, 4 * (beta + alpha * size))

    def _need(self, load: Load) -> tuple[float, float]:
        """Return how many workers the rate needs, and how many more what waits too long."""
        size, beta, alpha = self._speed
        if not size:  # no batch has run yet: what is there is busy or not
            return self._busy * load.workers / FULL, 0.0
        target = self.target()
        each = self._yield * size / (beta + alpha * size)
        rate = max(self.rate, self._quick_rate) if load.age > target else self.rate
        need = rate / (each * FULL)
        if 2 * beta < target:  # else no number of workers meets it
            need = max(need, rate * alpha / (self._yield * (1 - 2 * beta / target)))
        within = each * load.workers * target / 2
        extra = max(0.0, load.queued - within) / (each * CLEAR)
        return need, extra

    def _learn_yield(self, now: float, load: Load) -> None:
        """See what the workers answer when they have all that they can take."""
        size, beta, alpha = self._speed
        if not (size and load.workers and load.busy >= BUSY and load.queued > size * load.workers):
            self._full_since = math.inf
            self._yield += WEIGHT / 100 * (1.0 - self._yield)
            return
        self._full_since = min(self._full_since, now)
        if now - self._full_since > 2 * SMOOTH:
            found = self._answer_rate * (beta + alpha * size) / (size * load.workers)
            self._yield += WEIGHT * (min(1.0, max(LEAST_YIELD, found)) - self._yield)

    def _insists(self, now: float, load: Load) -> bool:
        """Whether one more is wanted since the queue stays too old although all are there."""
        if not load.queued or load.age <= self.target() or load.workers < self.workers:
            self._insist_at = math.inf
            return False
        self._insist_at = min(self._insist_at, now + STUBBORN)
        if now < self._insist_at:
            return False
        self._insist_at = now + STEP
        return True


class _Highest:
    """The highest of the values of the last seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._values: deque[tuple[float, float]] = deque()

    @property
    def value(self) -> float:
        return self._values[0][1] if self._values else 0.0

    def add(self, now: float, value: float) -> None:
        while self._values and self._values[-1][1] <= value:
            self._values.pop()
        self._values.append((now, value))
        while self._values[0][0] < now - self._seconds:
            self._values.popleft()

    def clear(self) -> None:
        self._values.clear()
