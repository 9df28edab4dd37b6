"""When the calls of an open loop begin: whatever becomes of earlier ones."""

from __future__ import annotations

import random


def poisson(rate: float, seconds: float, seed: int = 1) -> list[float]:
    """Return the starts of independent callers, who know nothing of each other.

    Args:
        rate: calls a second, on average.
        seconds: how long calls begin.
        seed: the same one gives the same starts.

    Returns:
        Seconds from the beginning, in order; one at least.
    """
    draw = random.Random(seed).expovariate
    found = [0.0]
    while (at := found[-1] + draw(rate)) < seconds:
        found.append(at)
    return found


def even(rate: float, seconds: float) -> list[float]:
    """Return starts that are all equally far apart, as of a timer; arguments as for `poisson`."""
    return [number / rate for number in range(max(1, round(rate * seconds)))]
