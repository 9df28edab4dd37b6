"""How many workers the load wants, between bounds and not back and forth: pure.

A broker's own `zstreamer_wanted_workers` is taken where it has it; else it is estimated from its
snapshot. Going up is at once; going down waits until fewer have been enough for a while.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BUSY = 0.7
"""Share of what a worker can do that it should have to do."""

CLEARED_IN = 5.0
"""Seconds in which what is queued should be worked off."""


@dataclass(frozen=True)
class Autoscaling:
    """Bounds of the number of workers.

    Args:
        least, most: workers.
        patience: seconds for which fewer must have been enough before any is drained.

    Raises:
        ValueError: the bounds make no sense.
    """

    least: int = 1
    most: int = 1
    patience: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"give 1 <= least <= most, not {self.least} and {self.most}")


def estimated(model: Mapping[str, Any]) -> int:
    """Return how many workers a broker's load wants, from what its snapshot says of the model."""
    warm: int = sum(worker.get("state") == "warm" for worker in model.get("workers", ()))
    capacity = float(model.get("capacity") or 0.0)
    queued, rate = int(model.get("queued", 0)), float(model.get("rate") or 0.0)
    if not warm or not capacity:
        return 1 if queued else 0
    return math.ceil((rate + queued / CLEARED_IN) / (BUSY * capacity / warm))


class Scaler:
    """Follows what the load wants.

    Args:
        bounds: how few and how many.
    """

    def __init__(self, bounds: Autoscaling) -> None:
        self.bounds = bounds
        self._past: deque[tuple[float, int]] = deque()

    def workers(self, now: float, wanted: int) -> int:
        """Return how many workers there should be: the most wanted within the patience."""
        bounds = self.bounds
        self._past.append((now, min(max(wanted, bounds.least), bounds.most)))
        while self._past[0][0] < now - bounds.patience:
            self._past.popleft()
        return max(count for _, count in self._past)
