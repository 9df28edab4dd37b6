"""A rolling replacement of a model's versions, step by step. Pure: told the time and what the
brokers say, it returns what to order.

    wait for the new version's workers ─> 10 % ─> 50 % ─> 100 % ─> drain the old ones ─> done
                 └─ in vain ─> as before      └─ they fail ─> as before

What is wanted of a broker is compared with what it has each time, so that one that was restarted
meanwhile is told again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

Row = Mapping[str, Any]
"""What a broker says of a model with versions (``Family.row``); empty for a plain one."""


class Order(NamedTuple):
    """What a broker is to be told."""

    action: str
    name: str
    change: dict[str, object] | None = None


class Phase(Enum):
    """How far it is."""

    WAITING = "waiting"
    SHIFTING = "shifting"
    DRAINING = "draining"
    DONE = "done"
    FAILED = "failed"


class Roll:
    """One replacement at one or several brokers.

    Args:
        model: its name.
        version: the new one.
        now: monotonic seconds.
        workers: of the new version that must be warm at each broker; None for as many as the
            others have there now.
        steps: percentages of the items, rising, of which the last is 100.
        pause: seconds of each step but the last.
        timeout: seconds to wait for the workers, and then for the old ones to finish.

    Attributes:
        phase: how far it is.
        words: what is to be told of it, oldest first; the caller takes it.
    """

    def __init__(
        self,
        model: str,
        version: str,
        now: float,
        *,
        workers: int | None = None,
        steps: Sequence[float] = (10, 50, 100),
        pause: float = 5.0,
        timeout: float = 600.0,
    ) -> None:
        self.phase = Phase.WAITING
        self.words: list[str] = []
        self._model = model
        self._version = version
        self._workers = workers
        self._steps = list(steps)
        self._pause = pause
        self._timeout = timeout
        self._end = now + timeout
        self._step_end = 0.0
        self._percent = 0.0
        self._before: dict[str, dict[str, float]] = {}
        self._without: set[str] = set()  # brokers that had no weights
        self._failures: dict[str, int] = {}
        self._said = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be looked at, once the last orders are carried out."""
        return self.phase in (Phase.DONE, Phase.FAILED)

    @property
    def begun(self) -> Collection[str]:
        """URLs of brokers that have answered, and so may have been told something."""
        return self._before

    def look(self, now: float, rows: Mapping[str, Row | None]) -> None:
        """Take a step where it is time for one.

        Args:
            now: monotonic seconds.
            rows: what each broker says, by its URL; None for one that does not answer.
        """
        for url, row in rows.items():
            if row is not None and url not in self._before:
                self._begin(url, row)
        known = {url: row for url, row in rows.items() if row is not None}
        if self.phase is Phase.WAITING:
            self._wait(now, rows, known)
        elif self.phase is Phase.SHIFTING:
            self._shift(now, known)
        elif self.phase is Phase.DRAINING:
            self._drain(now, rows, known)

    def give_up(self, why: str) -> None:
        """Have the items go as before, if they do not all go to the new version yet."""
        if self.phase in (Phase.WAITING, Phase.SHIFTING):
            self._percent = 0.0
            self.phase = Phase.FAILED
            self.words.append(f"{why}: the items go as before")

    def orders(self, url: str, row: Row | None) -> list[Order]:
        """Return what a broker must be told to have it as it is wanted now."""
        if row is None or url not in self._before:
            return []
        found = []
        route = row.get("route", {})
        change: dict[str, object] = {}
        weights: dict[str, float] | None = self._weights(url)
        if self.phase is Phase.FAILED and not self._percent and url in self._without:
            weights = None
        if (route.get("weights") or None) != weights:
            change["weights"] = weights
        if self._percent and route.get("shadow") == self._version:
            change["shadow"] = None
        if change:
            found.append(Order("route", self._model, change))
        if self.phase in (Phase.DRAINING, Phase.DONE):
            warm = [each for each in self._others(row) if row["versions"][each]["warm"]]
            found += [Order("drain", f"model {self._model}@{version}") for version in warm]
        return found

    def _begin(self, url: str, row: Row) -> None:
        versions = row.get("versions", {})
        others = {v: int(versions[v]["warm"]) for v in self._others(row)}
        weights = dict(row.get("route", {}).get("weights") or {})
        if not weights:
            self._without.add(url)
            weights = {v: float(warm) for v, warm in others.items() if warm} or {"": 1.0}
        self._before[url] = weights
        self._failures[url] = self._of_new(row, "failures")

    def _others(self, row: Row) -> list[str]:
        return [version for version in row.get("versions", {}) if version != self._version]

    def _of_new(self, row: Row, key: str) -> int:
        return int(row.get("versions", {}).get(self._version, {}).get(key, 0))

    def _needed(self, row: Row) -> int:
        """How many of its workers must be warm."""
        others = sum(int(row["versions"][version]["warm"]) for version in self._others(row))
        hold = int(row.get("route", {}).get("hold", {}).get(self._version, 1))
        return max(self._workers or max(1, others), hold)

    def _weights(self, url: str) -> dict[str, float]:
        before = self._before[url]
        if not self._percent:
            return before
        if self._percent >= 100:
            return {self._version: 1.0}
        others = {v: w for v, w in before.items() if v != self._version and w}
        total = sum(others.values())
        left = 100 - self._percent
        return {
            **{v: round(left * w / total, 6) for v, w in others.items()},
            self._version: float(self._percent),
        }

    def _wait(self, now: float, rows: Mapping[str, Row | None], known: Mapping[str, Row]) -> None:
        warm = {url: self._of_new(row, "warm") for url, row in known.items()}
        needs = {url: self._needed(row) for url, row in known.items()}
        if len(known) == len(rows) and all(n >= needs[url] for url, n in warm.items()):
            self.phase = Phase.SHIFTING
            self._next_step(now)
        elif now >= self._end:
            self.give_up(f"{self._name} is not ready after {self._timeout:g} s")
        else:
            url = min(known, key=lambda each: warm[each] - needs[each], default=None)
            if url is None or len(known) < len(rows):
                self._say("waiting for a broker that does not answer")
            else:
                self._say(f"waiting: {warm[url]} of {needs[url]} workers of {self._name} are warm")

    def _shift(self, now: float, known: Mapping[str, Row]) -> None:
        for url, row in known.items():
            failures = self._of_new(row, "failures") - self._failures[url]
            if failures > 0:
                self.give_up(f"a model's process of {self._name} failed")
                return
            if not self._of_new(row, "warm"):
                self.give_up(f"{self._name} has no warm worker any more")
                return
        if now >= self._step_end:
            self._next_step(now)

    def _next_step(self, now: float) -> None:
        if self._percent >= 100:
            self.phase = Phase.DRAINING
            self._end = now + self._timeout
            self._say("draining the workers of the other versions")
            return
        self._percent = self._steps.pop(0)
        self._step_end = now + (0.0 if self._percent >= 100 else self._pause)
        self._say(f"{self._name} gets {self._percent:g} % of the items")

    def _drain(self, now: float, rows: Mapping[str, Row | None], known: Mapping[str, Row]) -> None:
        out = warm = 0
        for row in known.values():
            others = [row["versions"][version] for version in self._others(row)]
            out += sum(int(each["out"]) for each in others)
            warm += sum(int(each["warm"]) for each in others)
        if not (out or warm) and len(known) == len(rows):
            self.phase = Phase.DONE
            self._say(self._done(known.values()))
        elif now >= self._end:
            self.phase = Phase.FAILED
            self._say(f"all items go to {self._name}, but old workers still hold {out}: see status")
        elif out:
            self._say(f"draining: they hold {out:,} items")

    def _done(self, rows: Iterable[Row]) -> str:
        """Say which workers are left; a version is known for a while after they have gone."""
        left = {v for row in rows for v in self._others(row) if row["versions"][v]["workers"]}
        if not left:
            return "done: no other version has a worker"
        bare = f"{self._model} without a version"
        names = ", ".join(f"{self._model}@{v}" if v else bare for v in sorted(left))
        return f"done: the workers of {names} hold nothing and get nothing: stop them"

    @property
    def _name(self) -> str:
        return f"{self._model}@{self._version}"

    def _say(self, words: str) -> None:
        if words != self._said:
            self._said = words
            self.words.append(words)
