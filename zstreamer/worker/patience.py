"""When what a model does counts as hung.

Who hangs a batch is found by halving it, and each half may hang again. So that his mates are
answered in time, no step may take more than its share of what their budgets leave:

    budgets of 20 s, 32 items: killed after 2.5 s ─> 16 ─> 8 ─> 4 ─> 2 ─> 1, and 5 s to spare
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from zstreamer.batching import BatchTime
from zstreamer.worker.jobs import Job

MIN_PATIENCE = 2.0
MAX_PATIENCE = 30.0
"""Seconds before a predict counts as hung: at least, and at most where it is not usually slow."""

USUAL = 10.0
SLOWEST = 3.0
"""Times as long as usual, and as the slowest batch so far, that a predict may take in any case."""

SPARE_STEPS = 3
"""Steps that must fit into the budgets beside the halvings: the first, and two for the starts of
the model's process between them and for the answers."""

FIRST_STEPS = 3
FIRST_STEPS_ALONE = 2
"""The same where nothing is known of the model. Its first batch may be a slow one, as where it
compiles itself; once any part of the batch has run, its speed is known."""

SEVERAL = 2
"""Kills in a row that one item may cause; after more the model itself may have become slow."""


class Patience:
    """How long one model may take for what it does now.

    Args:
        timeout: seconds, as `zstreamer worker` was told; None to find it out.
        time: the model's batch time, as it is learned.
    """

    def __init__(self, timeout: float | None, time: BatchTime) -> None:
        self._timeout = timeout
        self._time = time
        self._slowest = 0.0
        self._kills = 0
        self._count = 0
        self._since = self._left = 0.0
        self._preparing_since: float | None = None
        self._preparing_left = 0.0

    @property
    def batch(self) -> tuple[int, float]:
        """How many items the batch has that runs now, 0 for none; and since when."""
        return self._count, self._since

    def begin(self, now: float, count: int, jobs: Iterable[Job]) -> None:
        """A batch of so many items begins, of which these are still wanted."""
        self._count = count
        self._since = now
        self._left = _left(now, jobs)

    def end(self) -> None:
        """It has ended."""
        self._count = 0

    def answered(self, seconds: float) -> None:
        """A batch has outcomes. `seconds` is how long predict ran, 0 where that tells nothing."""
        self._kills = 0
        self._slowest = max(self._slowest, seconds)

    def prepare(self, now: float, jobs: Iterable[Job]) -> None:
        """From now on the model's own code looks at these, which have come."""
        self._preparing_since = now
        self._preparing_left = _left(now, jobs)

    def prepared(self) -> None:
        """It has looked at all of them."""
        self._preparing_since = None

    def gone(self) -> None:
        """The model's process has ended."""
        self._kills += self._count > 0
        self._count = 0
        self._preparing_since = None

    def pause(self, seconds: float) -> None:
        """The agent stood still, and the model perhaps with it: it is not judged by that time."""
        self._since += seconds
        if self._preparing_since is not None:
            self._preparing_since += seconds

    def until(self) -> float:
        """Return the monotonic seconds from which what the model does now counts as hung."""
        return min(self._predict_until(), self._prepare_until())

    def words(self, now: float) -> str:
        """Say what is hung."""
        what, since = "predict", self._since
        if now < self._predict_until() and self._preparing_since is not None:
            what, since = "prepare", self._preparing_since
        return f"was hung: one {what} took {now - since:.0f} s"

    def _predict_until(self) -> float:
        if not self._count:
            return math.inf
        if self._timeout:
            return self._since + self._timeout
        usual = self._time(self._count)
        if usual:
            steps = math.ceil(math.log2(self._count)) + SPARE_STEPS
            doublings = max(0, self._kills - SEVERAL)
        else:
            steps = FIRST_STEPS if self._count > 1 else FIRST_STEPS_ALONE
            doublings = self._kills
        share = max(MIN_PATIENCE, self._left / steps) * 2.0**doublings
        return self._since + max(min(MAX_PATIENCE, share), USUAL * usual, SLOWEST * self._slowest)

    def _prepare_until(self) -> float:
        if self._preparing_since is None:
            return math.inf
        share = max(MIN_PATIENCE, self._preparing_left / FIRST_STEPS_ALONE)
        return self._preparing_since + (self._timeout or min(MAX_PATIENCE, share))


def _left(now: float, jobs: Iterable[Job]) -> float:
    """Return the seconds that the most urgent of these has left."""
    return max(0.0, min((job.deadline for job in jobs), default=math.inf) - now)
