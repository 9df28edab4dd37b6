"""What a broker's log says of sessions and items that it has refused: which, why and how many."""

from __future__ import annotations

import logging
import math

from zstreamer.broker.core import BrokerCore
from zstreamer.system.logs import Sparing, event, printable

log = logging.getLogger("zstreamer.broker")

ITEMS = 1.0
"""Seconds between two looks at what models have refused."""

FOLD = 10.0
"""Seconds between two lines on refusals of one kind; the next says how many there were."""


class Refusals:
    """Writes a line for the first refusal of a kind, and at times how many have followed."""

    def __init__(self, core: BrokerCore) -> None:
        self._core = core
        self._folded = Sparing(FOLD)
        self._items_at = 0.0
        self._items: dict[tuple[str, str], int] = {}

    def look(self, now: float) -> None:
        """Tell what was refused since the last look."""
        refusals = self._core.sessions.refusals
        while refusals:
            side, who, why = refusals.popleft()
            self._count(now, f"{side.value} refused\n{why}", 1, who)
        if now >= self._items_at:
            self._items_at = now + ITEMS
            self._look_at_items(now)
        for kind, count, last in self._folded.flush(now):
            _tell(kind, count, last)

    def close(self, now: float) -> None:
        """The broker ends: tell what was held back."""
        self._items_at = 0.0
        self.look(now)
        for kind, count, last in self._folded.flush(math.inf):
            _tell(kind, count, last)

    def _look_at_items(self, now: float) -> None:
        before, self._items = self._items, {}
        for model in self._core.models.values():
            for reason, count in model.tally.refused.items():
                key = model.name, reason
                self._items[key] = count
                if (grown := count - before.get(key, 0)) > 0:
                    last = f"model={printable(model.name, 100)}"
                    self._count(now, f"items refused\nreason {reason}", grown, last)

    def _count(self, now: float, kind: str, count: int, last: str) -> None:
        if told := self._folded.admit(now, kind, count, last):
            _tell(kind, told, last)


def _tell(kind: str, times: int, last: str) -> None:
    words, _, why = kind.partition("\n")
    log.warning(event(words or "refused", times=times, last=last, why=why))
