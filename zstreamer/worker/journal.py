"""What a worker's log says of its brokers, of its model, and of what predict raised."""

from __future__ import annotations

import logging
import math
from collections import Counter

from zstreamer import errors
from zstreamer.system import logs
from zstreamer.wire.link import LinkState
from zstreamer.wire.protocol import WorkerState
from zstreamer.worker import pipe
from zstreamer.worker.core import WorkerCore
from zstreamer.worker.link import WorkerLink

log = logging.getLogger("zstreamer.worker.agent")  # whose log it is

UNANSWERED = 5
"""Attempts to connect, about a second, after which a person is told that they fail."""

REMINDER = 30.0
"""Seconds between two lines about a broker that still cannot be reached."""

LOADED = 1.0
"""Seconds that a loaded model may lack a broker before a person is told: one that is greeted
anew, or starts at the same time, is there sooner."""

FAILURES = 5.0
"""Seconds between two lines about exceptions of one type that predict raised."""


class Journal:
    """Writes of one worker, once for each change; ``core`` is only looked at."""

    def __init__(self, core: WorkerCore) -> None:
        self._core = core
        self._told: dict[WorkerLink, str] = {}
        self._reminders = logs.Sparing(REMINDER)
        self._model_words = ""
        self._warm_at = math.inf
        self._failures = logs.Sparing(FAILURES)

    def tell(self, now: float) -> None:
        """Look at what has changed; now: monotonic seconds."""
        self._links(now)
        self._model(now)
        followed = self._core.backlog.followed
        while followed:
            log.debug(followed.popleft())
        if now >= self._failures.due:
            self._flush(now)

    def close(self) -> None:
        """The worker ends: tell what was held back."""
        self._flush(math.inf)

    def _flush(self, now: float) -> None:
        for type_name, items, last in self._failures.flush(now):
            _tell_failure(type_name or "others", items, last)

    def failures(self, now: float, done: pipe.Done) -> None:
        """Log what went wrong in predict, a line for each type of exception."""
        refusals = [errors.from_wire(each) for each in done.outcomes if isinstance(each, list)]
        if not refusals:
            return
        failed = [each for each in refusals if isinstance(each, errors.PredictError)]
        counts = Counter(each.type for each in failed)
        for last in {each.type: each for each in failed}.values():
            items = self._failures.admit(now, last.type, counts[last.type], last.message[:200])
            if items:
                _tell_failure(last.type, items, last.message)

    def _links(self, now: float) -> None:
        """Log what has become of brokers: each change, and at times what is still wrong."""
        for link in self._core.links:
            words = self._told.get(link, "")
            if link.state is LinkState.READY:
                words = "connected"
            elif link.refusal is not None:
                words = f"refused: {link.refusal.message}"
            elif words == "connected" and not link.anew:
                words = "lost, reconnecting"
            elif not words and link.attempts >= UNANSWERED:
                trouble = link.trouble or "does `zstreamer broker` run there?"
                words = f"no answer yet, still trying; {trouble}"
            changed = words != self._told.get(link, "")
            wrong = words not in ("", "connected")
            # Always asked where something is wrong, so that a reminder counts from the last line.
            due = wrong and self._reminders.admit(now, f"{link.address} {words}") > 0
            if changed or due:
                self._told[link] = words
                level = logging.WARNING if wrong else logging.INFO
                words, _, why = words.partition(": ")
                log.log(level, logs.event(words, first=True, why=why, broker=link.address))

    def _model(self, now: float) -> None:
        """Log once that the model is loaded, and that it is ready once a broker knows."""
        if self._core.state is not WorkerState.WARM:
            self._model_words, self._warm_at = "", math.inf
            return
        if self._model_words == "ready":
            return
        self._warm_at = min(self._warm_at, now)
        words = self._model_words
        if any(link.state is LinkState.READY for link in self._core.links):
            words = "ready"
        elif now >= self._warm_at + LOADED:
            words = "loaded, waiting for a broker"
        if words != self._model_words:
            self._model_words = words
            log.info(logs.event(words, first=True, model=self._core.config.served))


def _tell_failure(type_name: str, items: int, last: str) -> None:
    log.warning(logs.event("predict failed", type=type_name, items=items, last=last[:200]))
