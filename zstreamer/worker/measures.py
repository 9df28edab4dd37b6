"""How long a worker's items wait and its batches run, and what becomes of items: for `/metrics`.

What its batches were like besides is in tally.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from zstreamer import errors
from zstreamer.histogram import Histogram, Sizes
from zstreamer.worker.jobs import Job

_CODES = {int(code): code.name.lower() for code in errors.Code}


class Measures:
    """Counts of one worker.

    Attributes:
        outcomes: items that have left, by what the metrics call their outcome.
        waits: seconds from an item's arrival until its batch begins.
        sizes: items of each batch.
        predict: seconds that predict ran.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.waits = Histogram()
        self.sizes = Sizes()
        self.predict = Histogram()

    def begun(self, now: float, jobs: Iterable[Job], size: int) -> None:
        """A batch begins; jobs: its items that somebody still waits for."""
        self.sizes.observe(size)
        self.waits.observe_all([now - job.arrived for job in jobs])

    def done(self, outcomes: Sequence[object], seconds: float) -> int:
        """Outcomes have come; return how many of them are errors.

        seconds: that predict ran, 0 where it tells nothing.
        """
        if seconds:
            self.predict.observe(seconds)
        failed = [each for each in outcomes if type(each) is list]
        for outcome in failed:
            code = outcome[0] if outcome and type(outcome[0]) is int else 0
            self.outcomes[_CODES.get(code, "other")] += 1
        if good := len(outcomes) - len(failed):
            self.outcomes["ok"] += good
        return len(failed)
