"""What became of a client's calls, as plain numbers; `zstreamer.metrics` shows them.

Each driver counts in its own thread; a client adds up its drivers, those that have ended included.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from zstreamer.client.calls import Call
from zstreamer.errors import Code, ModelNotFound
from zstreamer.histogram import Histogram
from zstreamer.system import native

MAX_MODELS = 200
"""Models that are told apart; the name of all others is empty."""

FLUSH = 0.25
"""Seconds after the end of a call until those who share files hear of it."""

_CODES = {int(code): code.name.lower() for code in Code}


class News(NamedTuple):
    """A call that has ended, for those who want each of them.

    Attributes:
        items: how many of its items had which outcome.
        seconds: that it took.
    """

    model: str
    outcome: str
    items: Mapping[str, int]
    seconds: float


class _Good:
    """Calls of one model that have ended well: counted without a hash for each."""

    __slots__ = ("calls", "items", "seconds")

    def __init__(self, seconds: Histogram) -> None:
        self.calls = 0
        self.items = 0
        self.seconds = seconds


class Tally:
    """Counts of one driver, or of several.

    Attributes:
        calls: that have ended, by model and outcome: ok, or the name of the error. Complete in
            the sum of tallies only, see `Tallies.total`.
        items: the same of their items.
        seconds: that calls took, by model.
        news: calls that have ended, where somebody takes them; see `Tallies.flush`.
        due: monotonic seconds at which they should be taken.
    """

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.items: Counter[tuple[str, str]] = Counter()
        self.seconds: dict[str, Histogram] = {}
        self._good: dict[str, _Good] = {}
        self.news: list[News] | None = None
        self.due = math.inf

    def ended(self, now: float, call: Call) -> None:
        """A call has ended."""
        error = call.error
        if error is None and self.news is None and not call.keep_errors:  # nearly all there are
            good = self._good.get(call.model)
            if good is None:
                name = self._named(call.model)
                good = self._good.setdefault(name, _Good(self.seconds[name]))
            good.calls += 1
            good.items += len(call.outcomes)
            good.seconds.observe(max(0.0, now - call.submitted))
            return
        model = self._named("" if isinstance(error, ModelNotFound) else call.model)
        outcome = "ok" if error is None else error.kind
        seconds = max(0.0, now - call.submitted)
        apart = error is None and call.keep_errors
        items = _outcomes(call) if apart else {outcome: len(call.outcomes)}
        self.calls[model, outcome] += 1
        for each, count in items.items():
            self.items[model, each] += count
        self.seconds[model].observe(seconds)
        if self.news is not None:
            self.news.append(News(model, outcome, items, seconds))
            self.due = min(self.due, now + FLUSH)

    def _named(self, model: str) -> str:
        """Return the name under which a model is counted."""
        if model not in self.seconds:
            if len(self.seconds) >= MAX_MODELS:
                model = ""
            self.seconds.setdefault(model, Histogram())
        return model

    def add(self, other: Tally) -> None:
        """Count what another one has counted."""
        for mine, others in ((self.calls, other.calls), (self.items, other.items)):
            for key, count in list(others.items()):
                mine[key] += count
        for model, good in list(other._good.items()):
            self.calls[model, "ok"] += good.calls
            self.items[model, "ok"] += good.items
        for model, found in list(other.seconds.items()):
            self.seconds.setdefault(model, Histogram()).add(found)


def _outcomes(call: Call) -> Mapping[str, int]:
    """What became of each item of a call that keeps errors in their places."""
    return Counter(_name(each) for each in call.outcomes)


def _name(outcome: object) -> str:
    if not isinstance(outcome, list):
        return "ok"
    code = outcome[0] if outcome else None
    return _CODES.get(code, "other") if isinstance(code, int) else "other"


class Tallies:
    """The counts of all drivers of one client.

    Attributes:
        flush: is given news now and then, in a driver's thread; None where nobody wants them.
            To be set before the first call.
    """

    def __init__(self) -> None:
        self.flush: Callable[[list[News]], None] | None = None
        self._past = Tally()
        self._open: list[Tally] = []
        self._lock = native.lock()

    def new(self) -> Tally:
        """Return the tally of a new driver."""
        tally = Tally()
        if self.flush is not None:
            tally.news = []
        with self._lock:
            self._open.append(tally)
        return tally

    def look(self, now: float, tally: Tally) -> None:
        """Have the news taken where that is due."""
        if now >= tally.due:
            self._take(tally)

    def retire(self, tally: Tally) -> None:
        """Its driver has ended."""
        with self._lock:
            if tally in self._open:
                self._open.remove(tally)
                self._past.add(tally)
        self._take(tally)

    def _take(self, tally: Tally) -> None:
        tally.due = math.inf
        if self.flush is not None and tally.news:
            news, tally.news = tally.news, []
            self.flush(news)

    def total(self) -> Tally:
        """Return the sum of all."""
        total = Tally()
        with self._lock:
            for each in (self._past, *self._open):
                total.add(each)
        return total

    def begin_anew(self) -> None:
        """Forget everything, in a fork: what its parent has counted is the parent's."""
        self._lock = native.lock()
        self._past = Tally()
        self._open = []
