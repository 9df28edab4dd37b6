"""Which rate is measured next, and where the knee is: beyond it latency grows without bound.

    1 ─> 2 ─> 4 ─> 8 ─> 16 holds not ─> 11.3 ─> 13.5 ─> 12.3     doubled, then halved in

Pure: told the steps so far, it returns the next rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from zstreamer.bench.step import Step

FACTOR = 5.0
"""Times the median of the lowest rate that 99 % of the calls may take, where no limit is given."""

KEPT = 0.95
"""The least share of its rate that a step must answer."""

MAX_ERRORS = 0.01
"""The largest share of calls that may fail."""

REFINED = 3
"""Rates between the last one that held and the first one that did not."""

MOST = 24
"""Steps of a sweep."""

LEAST = 0.25
"""Calls a second below which no rate is tried."""


def limit_of(steps: Sequence[Step], limit: float | None = None) -> float:
    """Return the seconds within which 99 % of the calls are to be answered."""
    if limit is not None:
        return limit
    lowest = min((step for step in steps if step.rate), key=lambda step: step.rate, default=None)
    return FACTOR * lowest.p50 if lowest is not None else math.inf


def holds(step: Step, limit: float) -> bool:
    """Whether a rate can be kept up: nearly all calls are answered, and within the limit."""
    failed = step.calls - step.answered
    return (
        failed <= MAX_ERRORS * step.calls
        and step.throughput >= KEPT * step.calls / step.seconds
        and step.p99 <= limit
    )


def knee(steps: Sequence[Step], limit: float | None = None) -> Step | None:
    """Return the step of the highest rate that holds, all lower ones too; None where none does."""
    seconds = limit_of(steps, limit)
    found = None
    for step in sorted((step for step in steps if step.rate), key=lambda step: step.rate):
        if not holds(step, seconds):
            return found
        found = step
    return found


def first_rate(latency: float) -> float:
    """Return a rate that does not load what answers a lone call in so many seconds.

    It is a power of two, so that two runs have rates in common.
    """
    return 2.0 ** math.floor(math.log2(0.5 / max(latency, 1e-6)))


def next_rate(steps: Sequence[Step], limit: float | None = None) -> float | None:
    """Return the rate to measure after these, the first of which is given; None at the end."""
    rates = [step.rate for step in steps]
    seconds = limit_of(steps, limit)
    bad = [step.rate for step in steps if not holds(step, seconds)]
    if len(steps) >= MOST:
        return None
    if not bad:
        return 2 * max(rates)
    good = [rate for rate in rates if rate < min(bad)]
    if not good:
        return min(bad) / 2 if min(bad) > LEAST else None
    between = [rate for rate in rates if math.log2(rate / rates[0]) % 1]
    if len(between) >= REFINED:
        return None
    return float(f"{math.sqrt(max(good) * min(bad)):.3g}")
