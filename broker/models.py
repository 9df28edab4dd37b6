"""Models: the names that workers serve and clients ask for, with their queues and suspects."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from zstreamer.broker.gathering import Gathering
from zstreamer.broker.lots import Lot
from zstreamer.broker.queue import FairQueue
from zstreamer.broker.tally import Bundles, Tally
from zstreamer.broker.wanted import Load, Wanted
from zstreamer.wire.protocol import WorkerState

if TYPE_CHECKING:
    from zstreamer.broker.family import Family
    from zstreamer.broker.workers import Worker

MAX_MODELS = 4096
"""Models of which anything is known."""

FORGET = 900.0
MAX_IDLE = 1000
"""Seconds after which a model without workers and items is forgotten; of more, the oldest are."""

MANY = 2000
"""Lanes of a queue that one look passes over; with more, it is looked at less often."""

_WARM = WorkerState.WARM


class Model:
    """Everything the broker keeps under one model's name.

    Attributes:
        open: those of its workers that may be given items now.
        out: items that its workers have from this broker, running or not.
        others: items that they have from other brokers.
        suspects: groups of items that were in a batch whose process died. Each group runs
            as one batch of its own; a group that dies again is run in halves.
        inquest: tickets of the one such group that is out at a worker now.
        examiner: the worker that it is at; it gets nothing else meanwhile.
        reserved: a worker that gets nothing new until it can take the next such group.
        others_first: a group has just ended a process; before the next one, what waits and is
            under no suspicion has a turn.
        known: whether a worker has ever said that it serves this model.
        trouble: why the last worker that failed to start did so.
        gave_up: that worker will not try again, and none has come since.
        measured_rate: items a second that were answered lately.
        family: the versions that it is one of, or the front of; None where it has none.
        gathering: what is known of its callers' way back.
        learns: that is of use, since it has several workers and one may hold a batch.
        tally: what has happened to its items.
        bundles: how many items messages carry, of this and all other models.
        wanted: how many workers its load wants.
        oldest: when the item came that has waited longest, in monotonic seconds, as was seen last.
    """

    def __init__(
        self, name: str, bundles: Bundles | None = None, latency: float | None = None
    ) -> None:
        self.name = name
        self.tally = Tally()
        self.wanted = Wanted(latency)
        self.oldest = math.inf
        self.gathering = Gathering()
        self.learns = False
        self._skip = 0
        self.bundles = Bundles() if bundles is None else bundles
        self.queue = FairQueue()
        self.workers: dict[bytes, Worker] = {}
        self.family: Family | None = None
        self.open: dict[Worker, None] = {}
        self.out = 0
        self.others = 0
        self.suspects: deque[list[Lot]] = deque()
        self.inquest: set[int] = set()
        self.examiner: Worker | None = None
        self.reserved: Worker | None = None
        self.others_first = False
        self.known = False
        self.trouble = ""
        self.gave_up = False
        self.served = 0
        self.measured_rate = 0.0
        self._served_before = 0
        self._speed: tuple[float, float] | None = None
        self._warm = False

    def look_at(self, worker: Worker) -> None:
        """Something has changed that may close this worker to new items, or open it."""
        if worker.open and worker.session in self.workers:
            self.open[worker] = None
        else:
            self.open.pop(worker, None)

    @property
    def versions(self) -> Family | None:
        """The family that it is the front of; None for all other models."""
        return self.family if self.family is not None and self.family.front is self else None

    @property
    def team(self) -> Collection[Worker]:
        """Its workers, or those of its versions that may be given items now."""
        return self.workers.values() if self.versions is None else self.versions.workers()

    @property
    def warm(self) -> bool:
        """Whether any worker is ready, or stalled and expected back."""
        if self.family is not None:  # which of its workers count may change with others' states
            return any(w.state is _WARM and not w.drained for w in self.team)
        return self._warm

    @property
    def ready(self) -> bool:
        """Whether any worker answers, as far as is known."""
        return any(w.ready for w in self.team)

    def answers(self, now: float) -> bool:
        """Whether any worker can answer now; sooner than `ready` it says that none does."""
        return any(w.answers(now) for w in list(self.team))

    def trouble_now(self, now: float) -> str:
        """Say what is wrong; empty where a worker answers."""
        if self.answers(now):
            return ""
        if not self.warm:
            return self.trouble if self.versions is None else self.versions.trouble
        ages = [w.age(now) for w in list(self.team) if w.late or w.is_over(now)]
        if ages:
            return f"a batch has run for {max(ages):.0f} s: its predict may have hung"
        return "its workers are silent: their processes or their machine may be frozen"

    @property
    def broken(self) -> bool:
        """Whether no worker could start and none will try again."""
        if self.family is not None and self.versions is not None:
            return self.versions.broken
        return self.gave_up and all(w.state is WorkerState.BROKEN for w in self.workers.values())

    @property
    def waiting(self) -> int:
        """Items that no worker has yet."""
        return len(self.queue) + sum(len(lot) for group in self.suspects for lot in group)

    @property
    def idle(self) -> bool:
        """Whether it has neither workers nor items, nor versions."""
        return not (self.workers or self.queue.items or self.suspects or self.versions)

    @property
    def rate(self) -> float:
        """Items a second that the warm workers do in full batches; 0 where not yet known."""
        return (self._speed or self._known_speed())[0]

    @property
    def batch_time(self) -> float:
        """Seconds of one full batch on the slowest warm worker."""
        return (self._speed or self._known_speed())[1]

    def open_to_all(self) -> list[Worker]:
        """Return the workers that may be given ordinary items now."""
        if self.family is not None and self.versions is not None and not self.versions.takes(self):
            return []
        if self.reserved is None and not self.inquest:
            return list(self.open)
        if self.reserved is not None and not (self.suspects and self.reserved in self.open):
            self.reserved = None
        taken = (self.reserved, self.examiner if self.inquest else None)
        return [worker for worker in self.open if worker not in taken]

    def forget_speed(self) -> None:
        """The workers or their states are others now, or it is time to look how fast they are."""
        self._speed = None
        workers = self.workers.values()
        self.learns = len(workers) > 1 and any(w.max_latency for w in workers)
        self._warm = any(w.state is _WARM and not w.drained for w in workers)

    def _known_speed(self) -> tuple[float, float]:
        if self._speed is not None:
            return self._speed
        warm = [w for w in self.team if w.state is WorkerState.WARM and not w.drained]
        times = [(w.batch_size, w.batch_time(w.batch_size)) for w in warm]
        known = [(size, seconds) for size, seconds in times if seconds]
        if not known:
            return 0.0, 0.0
        # Those that have not run a batch yet count like the others.
        rate = sum(size / seconds for size, seconds in known) * len(times) / len(known)
        self._speed = rate, max(seconds for _, seconds in known)
        return self._speed

    def measure(self, seconds: float, weight: float) -> None:
        """Bring the measured rate up to date; ``seconds`` have passed since the last time."""
        rate = (self.served - self._served_before) / seconds
        self._served_before = self.served
        self.measured_rate += weight * (rate - self.measured_rate)
        self.forget_speed()

    def look_at_load(self, now: float) -> None:
        """Find out how old the queue is, and how many workers the load wants."""
        if self._skip:
            self._skip -= 1
        else:
            self.oldest, looked = self.queue.oldest()
            self._skip = looked // MANY
            suspects = (lot.arrived for group in self.suspects for lot in group)
            self.oldest = min(self.oldest, *suspects, math.inf)
        warm = [w for w in self.workers.values() if w.state is WorkerState.WARM]
        timed = [w for w in warm if w.beta or w.alpha]
        load = Load(
            self.tally.came,
            self.tally.answered,
            self.waiting,
            max(0.0, now - self.oldest),
            len(warm),
            mean([float(bool(w.running)) for w in warm]),
            max((w.batch_size for w in warm), default=0),
            mean([w.beta for w in timed]),
            mean([w.alpha for w in timed]),
        )
        self.wanted.look(now, load)

    def next_suspects(self) -> list[Lot]:
        """Take out the next group of suspects that still has a caller."""
        while self.suspects:
            group = [lot for lot in self.suspects.popleft() if lot.ids]
            if group:
                return group
        return []

    def state_in_words(self) -> str:
        """Say why items have to wait; empty where a worker is ready."""
        if self.warm:
            return ""
        versions = self.versions
        if versions is not None and (why := versions.why_held()):
            return why
        trouble = self.trouble if versions is None else versions.trouble
        workers = self.workers.values() if versions is None else versions.all_workers()
        after = f"; the last one failed:\n{trouble}" if trouble else ""
        if self.broken:
            return f"no worker for model {self.name!r} could start:\n{trouble}"
        if not workers:
            return f"no worker is connected for model {self.name!r}{after}"
        if any(worker.drained for worker in workers):
            return f"an operator has drained the workers for model {self.name!r}"
        return f"the workers for model {self.name!r} are still starting or stopping{after}"


class Models(dict[str, Model]):
    """All models by name, of which those that are of no use any more are forgotten.

    Args:
        latency: seconds in which items are to be answered, see `Wanted`.

    Attributes:
        bundles: how many items messages carry.
    """

    def __init__(self, latency: float | None = None) -> None:
        super().__init__()
        self.bundles = Bundles()
        self._latency = latency
        self._idle: dict[str, float] = {}

    @property
    def full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self) >= MAX_MODELS

    def named(self, name: str) -> Model:
        """Return the model of this name, a new one where there is none."""
        model = self.get(name)
        if model is None:
            model = self[name] = Model(name, self.bundles, self._latency)
        return model

    def forget_idle(self, now: float) -> None:
        """Forget models that have had neither worker nor item for long, or are too many."""
        idle = {name: self._idle.get(name, now) for name, m in self.items() if m.idle}
        old = [name for name, since in idle.items() if now - since > FORGET]
        if len(idle) - len(old) > MAX_IDLE:
            old = sorted(idle, key=idle.__getitem__)[:-MAX_IDLE]
        for name in old:
            del self[name], idle[name]
        self._idle = idle


def mean(values: Sequence[float]) -> float:
    """Return the mean of these; 0 where there are none."""
    return sum(values) / len(values) if values else 0.0
