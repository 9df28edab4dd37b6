"""The last minutes of a broker, second by second, for the charts of its page. Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from zstreamer.broker.core import BrokerCore
from zstreamer.broker.workers import Worker
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
        self._counts: tuple[float, float] | None = None
        self._times: list[int] = []
        self._batches: dict[int, _Batches] = {}
        self._mean = 0.0

    def look(self, core: BrokerCore, now: float) -> None:
        """Take a step where one is due."""
        seconds = now - self._at
        if seconds < STEP:
            return
        self._at = now
        models = list(core.models.values())
        workers = list(core.workers.values())
        total = Histogram()
        for model in models:
            total.add(model.tally.total)
        answered = float(sum(model.tally.answered for model in models))
        refused = float(sum(sum(model.tally.refused.values()) for model in models))
        batch = self._batch({worker.id: _batches(worker) for worker in workers})
        if self._counts is not None:
            quantiles = [total.quantile(share, self._times) for share in (0.5, 0.95, 0.99)]
            step = (
                round(now - core.born, 1),
                round(max(0.0, answered - self._counts[0]) / seconds, 1),
                core.scheduler.queued_items,
                sum(len(worker.tickets) for worker in workers),
                *(round(each, 5) for each in quantiles),
                round(batch, 2),
                round(max(0.0, refused - self._counts[1]) / seconds, 1),
            )
            self.steps.append(step)
        self._counts, self._times = (answered, refused), list(total.counts)

    def _batch(self, now: dict[int, _Batches]) -> float:
        """Return the items of the mean batch since the last step."""
        before, self._batches = self._batches, now
        batches = items = 0.0
        changed = False
        for id, each in now.items():
            then = before.get(id)
            if then is not None and then.told == each.told:
                batches += max(0.0, each.batches - then.batches)
                items += max(0.0, each.items - then.items)
            else:
                changed = True
        if batches or not changed:
            self._mean = items / batches if batches else 0.0
        return self._mean

    def since(self, at: float) -> list[tuple[float, ...]]:
        """Return the steps after this time of the broker's uptime."""
        return [step for step in list(self.steps) if step[0] > at]


class _Batches(NamedTuple):
    """What a worker has run; `told` by itself, or else as its reports let it seem."""

    told: bool
    batches: float
    items: float


def _batches(worker: Worker) -> _Batches:
    batches, items = worker.facts.get("batches"), worker.facts.get("items")
    if isinstance(batches, int | float) and isinstance(items, int | float):
        return _Batches(True, batches, items)
    return _Batches(False, worker.batches, worker.begun)
