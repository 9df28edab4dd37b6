"""What a broker's log says of its workers: who came, is ready, fails, drains, is silent, left.

The core is only looked at, some times a second: so a flood of peers that come and go writes no
flood of lines, and a worker that greets anew has not left.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

from zstreamer.broker.core import BrokerCore
from zstreamer.broker.workers import Worker
from zstreamer.system.logs import Sparing, event, printable
from zstreamer.wire.protocol import WorkerState

log = logging.getLogger("zstreamer.broker")

LOOK = 0.1
"""Seconds between two looks."""

LINES = 50
"""Lines that one look writes at most."""

ITEMS = 1.0
"""Seconds between two looks at what models have refused."""

FOLD = 10.0
"""Seconds between two lines on refusals of one kind; the next says how many there were."""

_STATES = {
    WorkerState.WARM: (logging.INFO, "ready"),
    WorkerState.BROKEN: (logging.ERROR, "gave up"),
    WorkerState.DRAINING: (logging.INFO, "draining"),
}


class _Seen(NamedTuple):
    """A worker as it was at the last look; `missing` where it was not there."""

    worker: Worker
    state: WorkerState
    stalled: bool
    failures: int
    missing: bool = False


class Journal:
    """Writes a line for each change among a broker's workers."""

    def __init__(self, core: BrokerCore) -> None:
        self._core = core
        self._seen: dict[int, _Seen] = {}
        self._look_at = 0.0
        self._lines = 0
        self._items_at = 0.0
        self._folded = Sparing(FOLD)
        self._refused: dict[tuple[str, str], int] = {}

    def close(self, now: float) -> None:
        """The broker ends: tell what was held back."""
        self._items_at = 0.0
        self._refusals(now)
        for kind, count, last in self._folded.flush(math.inf):
            self._tell_refusals(kind, count, last)

    def look(self, now: float) -> None:
        """Tell what has changed since the last look, if that is long enough ago."""
        followed = self._core.scheduler.bundles.followed
        while followed:
            log.debug(followed.popleft())
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        self._lines = 0
        here = {worker.id: worker for worker in self._core.workers.values()}
        for worker in here.values():
            before = self._seen.get(worker.id)
            if before is None:
                self._tell(logging.INFO, worker, "came")
                before = _Seen(worker, WorkerState.BOOTING, stalled=False, failures=0)
            self._note(before, worker)
        for id in [each for each in self._seen if each not in here]:
            self._absent(self._seen[id])
        if self._lines > LINES:
            log.warning(event("more changes among the workers", changes=self._lines - LINES))
        self._refusals(now)

    def _refusals(self, now: float) -> None:
        """Tell which sessions were refused, and which items; not each, but how many in all."""
        refusals = self._core.sessions.refusals
        while refusals:
            side, who, why = refusals.popleft()
            kind = f"{side.value} refused\n{why}"
            self._fold(now, kind, 1, who)
        if now >= self._items_at:
            self._items_at = now + ITEMS
            self._refused_items(now)
        for kind, count, last in self._folded.flush(now):
            self._tell_refusals(kind, count, last)

    def _refused_items(self, now: float) -> None:
        before, self._refused = self._refused, {}
        for model in self._core.models.values():
            for reason, count in model.tally.refused.items():
                key = model.name, reason
                self._refused[key] = count
                if (grown := count - before.get(key, 0)) > 0:
                    name = printable(model.name, 100)
                    self._fold(now, f"items refused\nreason {reason}", grown, f"model={name}")

    def _fold(self, now: float, kind: str, count: int, last: str) -> None:
        if told := self._folded.admit(now, kind, count, last):
            self._tell_refusals(kind, told, last)

    @staticmethod
    def _tell_refusals(kind: str, times: int, last: str) -> None:
        words, _, why = kind.partition("\n")
        log.warning(event(words or "refused", times=times, last=last, why=why))

    def _note(self, before: _Seen, worker: Worker, *, missing: bool = False) -> None:
        """Tell what of a worker has changed, and remember how it is now."""
        state = WorkerState(worker.state)
        again = worker is before.worker  # its counts are those of one connection
        self._seen[worker.id] = _Seen(worker, state, worker.stalled, worker.failures, missing)
        if worker.failures > (before.failures if again else 0):
            self._tell(logging.WARNING, worker, "failed", worker.trouble)
        if worker.stalled and not before.stalled:
            self._tell(logging.WARNING, worker, "silent, gets no new work")
        elif before.stalled and not (worker.stalled or missing):
            self._tell(logging.INFO, worker, "speaks again")
        failed = worker.failures > before.failures and state is WorkerState.WARM
        if (state is not before.state or failed) and state in _STATES:
            self._tell(_STATES[state][0], worker, _STATES[state][1])

    def _absent(self, seen: _Seen) -> None:
        """Tell that a worker has left, once it is missing for the second time."""
        worker = seen.worker
        if not seen.missing:
            self._note(seen, worker, missing=True)  # what it said at last
            return
        del self._seen[worker.id]
        if worker.state in (WorkerState.DRAINING, WorkerState.BROKEN):
            self._tell(logging.INFO, worker, "left")
        else:
            worker.model.tally.lost += 1
            self._tell(logging.WARNING, worker, "lost")

    def _tell(self, level: int, worker: Worker, what: str, why: str = "") -> None:
        self._lines += 1
        if self._lines > LINES:
            return
        info = worker.info
        host, pid, number, device = (
            printable(str(info.get(key, "-")), 100) for key in ("host", "pid", "number", "device")
        )
        reason = why.strip().rpartition("\n")[2]
        line = event(
            f"worker {what}",
            model=printable(worker.model.name, 100),
            host=host,
            pid=pid,
            number=number,
            device=device or "-",
            workers=len(worker.model.workers),
            why=printable(reason, 300),
        )
        log.log(level, line)
