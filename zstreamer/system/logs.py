"""Where the programs' logs go, and what a line looks like: one event a line, on standard error."""

from __future__ import annotations

import logging
import math
import sys
from collections import Counter
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)-7s %(process)d %(name)s %(message)s"


def start(level: str) -> None:
    """Log to standard error from now on; level: the least that is logged, such as "info"."""
    logging.basicConfig(level=level.upper(), format=FORMAT, stream=sys.stderr)


class Sparing:
    """Lets a line of each kind pass every so many seconds, and counts what it holds back.

    Args:
        seconds: between two lines of one kind.
        kinds: how many are told apart; all that come later count as one.
    """

    def __init__(self, seconds: float, kinds: int = 100) -> None:
        self._seconds = seconds
        self._kinds = kinds
        self._due: dict[str, float] = {}
        self._held: Counter[str] = Counter()

    def admit(self, now: float, kind: str, count: int = 1) -> int:
        """Return how many events a line now stands for, those held back too; 0: write none."""
        if kind not in self._due and len(self._due) >= self._kinds:
            kind = ""
        self._held[kind] += count
        if now < self._due.get(kind, -math.inf):
            return 0
        self._due[kind] = now + self._seconds
        return self._held.pop(kind, 0)  # another thread may have been first
