"""What a broker's log says of its workers: who came, is ready, fails, drains, is silent, left.

The core is only looked at, some times a second, so a worker that greets anew has not left. Of each
kind of change many lines may come at once, but few for ever: workers that fail again and again,
or come and go, write no flood. What is held back is counted, and told later.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

from zstreamer.broker.core import BrokerCore
from zstreamer.broker.workers import Worker
from zstreamer.system.logs import printable
from zstreamer.wire.protocol import WorkerState

log = logging.getLogger("zstreamer.broker")

LOOK = 0.1
"""Seconds between two looks."""

BURST = 100
REFILL = 0.1
"""Lines on one kind of change that may come at once, and a second."""

REMINDER = 10.0
"""Seconds between two lines on how many were held back."""

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


class _Kind:
    """The lines on one kind of change: how many more may be written, and what was held back."""

    def __init__(self, now: float) -> None:
        self._left = float(BURST)
        self._at = now
        self._level = logging.INFO
        self._held = 0
        self._last = ""
        self._tell_at = math.inf

    def write(self, now: float, level: int, line: str) -> None:
        """Write a line, or count it."""
        self._left = min(BURST, self._left + (now - self._at) * REFILL)
        self._at = now
        if self._left >= 1 and not self._held:
            self._left -= 1
            log.log(level, "%s", line)
            return
        self._held += 1
        self._level, self._last = level, line
        if self._tell_at == math.inf:
            self._tell_at = now + REMINDER

    def flush(self, now: float) -> None:
        """Tell what was held back, if it is time for that."""
        if self._held and now >= self._tell_at:
            log.log(self._level, "%s (the last of %d such changes)", self._last, self._held)
            self._held, self._tell_at = 0, math.inf


class Journal:
    """Writes a line for each change among a broker's workers."""

    def __init__(self, core: BrokerCore) -> None:
        self._core = core
        self._seen: dict[int, _Seen] = {}
        self._look_at = 0.0
        self._now = 0.0
        self._kinds: dict[str, _Kind] = {}

    def look(self, now: float) -> None:
        """Tell what has changed since the last look, if that is long enough ago."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        self._now = now
        here = {worker.id: worker for worker in self._core.workers.values()}
        for worker in here.values():
            before = self._seen.get(worker.id)
            if before is None:
                self._tell(logging.INFO, worker, "came")
                before = _Seen(worker, WorkerState.BOOTING, stalled=False, failures=0)
            self._note(before, worker)
        for id in [each for each in self._seen if each not in here]:
            self._absent(self._seen[id])
        for kind in self._kinds.values():
            kind.flush(now)

    def close(self) -> None:
        """The broker ends: tell what was held back."""
        for kind in self._kinds.values():
            kind.flush(math.inf)

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
        info = worker.info
        host, pid, number, device = (
            printable(str(info.get(key, "-")), 100) for key in ("host", "pid", "number", "device")
        )
        reason = why.strip().rpartition("\n")[2]
        line = (
            f"worker {what} model={printable(worker.model.name, 100)} host={host} pid={pid} "
            f"number={number} device={device or '-'} workers={len(worker.model.workers)}"
        )
        if reason:
            line += f": {printable(reason, 300)}"
        if what not in self._kinds:
            self._kinds[what] = _Kind(self._now)
        self._kinds[what].write(self._now, level, line)
