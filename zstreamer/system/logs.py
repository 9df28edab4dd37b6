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


def start_own(level: str) -> None:
    """Log this package's lines alone, in a process whose other logging is the user's to set up."""
    own = logging.getLogger("zstreamer")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    own.addHandler(handler)
    own.setLevel(level.upper())
    own.propagate = False


def printable(text: str, most: int) -> str:
    """Return what a peer says so that it moves no cursor and breaks no line.

    Args:
        text: whatever it says.
        most: characters beyond which it is cut.
    """
    shown = text if len(text) <= most else f"{text[:most]}…"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


class Sparing:
    """Lets a line of each kind pass every so many seconds, and counts what it holds back.

    Args:
        seconds: between two lines of one kind.
        kinds: how many are told apart; all that come later count as one, whose name is empty.

    Attributes:
        due: monotonic seconds at which `flush` has something to tell; infinite where it has not.
    """

    def __init__(self, seconds: float, kinds: int = 100) -> None:
        self.due = math.inf
        self._seconds = seconds
        self._kinds = kinds
        self._due: dict[str, float] = {}
        self._held: Counter[str] = Counter()
        self._last: dict[str, str] = {}

    def admit(self, now: float, kind: str, count: int = 1, last: str = "") -> int:
        """Return how many events a line now stands for, those held back too; 0: write none.

        Args:
            now: monotonic seconds.
            kind: of the events.
            count: how many there are.
            last: what `flush` is to say of the latest.
        """
        if kind not in self._due and len(self._due) >= self._kinds:
            kind = ""
        self._held[kind] += count
        due = self._due.get(kind, -math.inf)
        if now < due:
            self._last[kind] = last
            self.due = min(self.due, due)
            return 0
        self._due[kind] = now + self._seconds
        return self._held.pop(kind, 0)  # another thread may have been first

    def flush(self, now: float) -> list[tuple[str, int, str]]:
        """Return what was held back and is due now: kind, how many, and what the latest said."""
        if now < self.due:
            return []
        ready = [kind for kind in list(self._held) if now >= self._due.get(kind, -math.inf)]
        found = [(kind, self._held.pop(kind, 0), self._last.pop(kind, "")) for kind in ready]
        self._due.update(dict.fromkeys(ready, now + self._seconds))
        self.due = min((self._due[kind] for kind in list(self._held)), default=math.inf)
        return [each for each in found if each[1]]
