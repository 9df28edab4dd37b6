"""What only time changes: peers that are silent, late or do not read, and models nobody needs.

Everything here is looked at a few times a second, so that no message pays for it.
"""

from __future__ import annotations

from zstreamer import errors
from zstreamer.broker.admission import Admission
from zstreamer.broker.notices import Notices
from zstreamer.broker.patience import FEWER_WORDS
from zstreamer.broker.scheduler import Scheduler
from zstreamer.broker.sessions import Sessions
from zstreamer.broker.workers import STALL, Worker
from zstreamer.config import BrokerConfig

TICK = 0.25
"""Seconds between two looks at everything that only time can change."""

RATE_WEIGHT = 0.1
"""Weight of the latest tick in a model's rate: the last few seconds count."""


class Timers:
    """Looks at peers and models in ticks.

    Args:
        config: limits and times.
        born: monotonic seconds at which the broker started.
        scheduler: has the models and their items.
        sessions: has the peers.
        admission: knows why a model is not found.
        notices: tells clients what has become of a model.

    Attributes:
        due: monotonic seconds of the next tick.
    """

    def __init__(
        self,
        config: BrokerConfig,
        born: float,
        scheduler: Scheduler,
        sessions: Sessions,
        admission: Admission,
        notices: Notices,
    ) -> None:
        self.due = born
        self._config = config
        self._born = born
        self._scheduler = scheduler
        self._sessions = sessions
        self._admission = admission
        self._notices = notices

    def tick(self, now: float) -> None:
        """Look at everything; `due` has come."""
        seconds = now - self.due + TICK
        self.due = now + TICK
        self._look_at_workers(now)
        self._look_at_clients(now)
        models = self._scheduler.models
        for model in models.values():
            model.measure(seconds, RATE_WEIGHT)
            model.look_at_load(now)
        self.look_at_versions()
        models.forget_idle(now)
        self._scheduler.versions.forget_idle()
        for patience in self._sessions.patience.values():
            patience.forget(now)
        if now - self._born >= self._config.model_grace:
            self._end_grace()

    def look_at_versions(self) -> None:
        """Workers or routes may have changed so that other versions are given items now."""
        for front in self._scheduler.versions.look():
            self._notices.changed(front, self._sessions.clients.values())

    def _end_grace(self) -> None:
        """Nobody has come to serve these models since the broker's start: they are not found."""
        models = self._scheduler.models
        for model in [m for m in models.values() if not m.known]:
            if model.family is None:
                del models[model.name]
            if model.queue.items or model.suspects:
                error = self._admission.model_not_found(model.name)
                self._scheduler.fail_waiting(model, error)

    def _look_at_workers(self, now: float) -> None:
        counts = self._scheduler.counts
        for worker in list(self._sessions.workers.values()):
            if not worker.stalled and now - worker.heard > STALL:
                worker.stalled = True
                worker.model.look_at(worker)
                counts["stalls"] += 1
                worker.model.tally.stalls += 1
            if not worker.late and worker.is_late(now):
                worker.late = True
                worker.model.look_at(worker)
                counts["late"] += 1
                worker.model.tally.late += 1
            worker.words = max(0, worker.words - int(FEWER_WORDS * TICK))
            if worker.is_stuck(now):
                self._expel_stuck(now, worker)
            elif worker.told > self._config.unread_bytes:
                counts["resets"] += 1
                words = "requested data was not read; the connection is reset"
                self._sessions.expel(now, worker, errors.Overloaded(words))

    def _look_at_clients(self, now: float) -> None:
        for client in list(self._sessions.clients.values()):
            client.words = max(0, client.words - int(FEWER_WORDS * TICK))
            client.peak_before, client.peak = client.peak, len(client.items)
            if client.session is None and now - client.lost_at > self._config.resume_grace:
                self._sessions.forget(client)
            elif client.unread + client.told > self._config.unread_bytes:
                self._sessions.reset(now, client)

    def _expel_stuck(self, now: float, worker: Worker) -> None:
        """It says that it is there, and nothing of what it holds."""
        self._scheduler.counts["stuck"] += 1
        words = f"no report on its tickets for {now - worker.moved:.0f} s"
        self._sessions.expel(now, worker, errors.DeadlineExceeded(words))
