"""The last minutes of a broker, second by second, for the charts of its page. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from zstreamer.broker.core import BrokerCore
from zstreamer.histogram import Histogram

STEP = 1.0
"""Seconds between two steps."""

STEPS = 300
"""Steps that are kept: five minutes."""

KEYS = ("at", "rate", "queued", "running", "p50", "p95", "p99", "batch", "refused")
"""What a step has: seconds of the broker's uptime; items answered a second; items queued, and at
workers; seconds from an item's arrival to its answer; items of the mean batch; refused a second."""


class History:
    """Takes a step a second from the counts of all models together."""

    def __init__(self) -> None:
        self.steps: deque[tuple[float, ...]] = deque(maxlen=STEPS)
        self._at = 0.0
        self._before: tuple[float, ...] = ()
        self._times: list[int] = []

    def look(self, core: BrokerCore, now: float) -> None:
        """Take a step where one is due."""
        if now - self._at < STEP:
            return
        models = list(core.models.values())
        workers = list(core.workers.values())
        total = Histogram()
        for model in models:
            total.add(model.tally.total)
        counts = (
            float(sum(model.tally.answered for model in models)),
            float(sum(sum(model.tally.refused.values()) for model in models)),
            _sum(worker.facts.get("batches", worker.batches) for worker in workers),
            _sum(worker.facts.get("items", worker.begun) for worker in workers),
        )
        if self._before:
            seconds = now - self._at
            grown = [max(0.0, b - a) for a, b in zip(self._before, counts, strict=True)]
            answered, refused, batches, items = grown
            quantiles = [total.quantile(share, self._times) for share in (0.5, 0.95, 0.99)]
            self.steps.append(
                (
                    round(now - core.born, 1),
                    round(answered / seconds, 1),
                    core.scheduler.queued_items,
                    sum(len(worker.tickets) for worker in workers),
                    *(round(each, 5) for each in quantiles),
                    round(items / batches, 2) if batches else 0.0,
                    round(refused / seconds, 1),
                )
            )
        self._at, self._before, self._times = now, counts, list(total.counts)

    def since(self, at: float) -> list[tuple[float, ...]]:
        """Return the steps after this time of the broker's uptime."""
        return [step for step in list(self.steps) if step[0] > at]


def _sum(values: Iterable[object]) -> float:
    return float(sum(each for each in values if isinstance(each, int | float)))
