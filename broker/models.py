"""A model: the name that workers serve and clients ask for, its queue and its suspects."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from broker.items import Item, ItemState
from broker.queue import FairQueue
from zstreamer.protocol import WorkerState

if TYPE_CHECKING:
    from broker.workers import Worker


class Model:
    """Everything the broker keeps under one model's name.

    Attributes:
        suspects: groups of items that were in a batch whose process died. Each group runs
            as one batch of its own; a group that dies again is run in halves.
        known: whether a worker has ever said that it serves this model.
        inquest: tickets of the one group that is out at a worker now.
        trouble: why the last worker that failed to start did so.
        measured_rate: items a second that were answered lately.
        gave_up: that worker will not try again, and none has come since.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue = FairQueue()
        self.workers: dict[bytes, Worker] = {}
        self.suspects: deque[list[Item]] = deque()
        self.inquest: set[int] = set()
        self.known = False
        self.trouble = ""
        self.gave_up = False
        self.served = 0
        self.measured_rate = 0.0
        self._served_before = 0

    @property
    def open_workers(self) -> list[Worker]:
        """Workers that may be given items now."""
        return [w for w in self.workers.values() if w.open]

    @property
    def warm(self) -> bool:
        """Whether any worker is ready, or stalled and expected back."""
        return any(w.state is WorkerState.WARM for w in self.workers.values())

    @property
    def broken(self) -> bool:
        """Whether no worker could start and none will try again."""
        return self.gave_up and all(w.state is WorkerState.BROKEN for w in self.workers.values())

    @property
    def waiting(self) -> int:
        """Items that no worker has yet."""
        return len(self.queue) + sum(map(len, self.suspects))

    @property
    def at_workers(self) -> int:
        """Items that workers have, running or not, from all brokers."""
        return sum(w.waiting + w.begun for w in self.workers.values())

    @property
    def rate(self) -> float:
        """Items a second that the warm workers do in full batches; 0 where not yet known."""
        warm = [w for w in self.workers.values() if w.state is WorkerState.WARM]
        if not warm or any(not w.beta and not w.alpha for w in warm):
            return 0.0
        return sum(w.batch_size / (w.beta + w.alpha * w.batch_size) for w in warm)

    def batch_time(self) -> float:
        """Seconds of one full batch on the slowest warm worker."""
        return max((w.beta + w.alpha * w.batch_size for w in self.workers.values()), default=0.0)

    def measure(self, seconds: float, weight: float) -> None:
        """Bring the measured rate up to date; ``seconds`` have passed since the last time."""
        rate = (self.served - self._served_before) / seconds
        self._served_before = self.served
        self.measured_rate += weight * (rate - self.measured_rate)

    def next_suspects(self) -> list[Item]:
        """Take out the next group of suspects that still has a caller."""
        while self.suspects:
            group = [i for i in self.suspects.popleft() if i.state is ItemState.QUEUED]
            if group:
                return group
        return []

    def state_in_words(self) -> str:
        """Say why items have to wait; empty where a worker is ready."""
        if self.warm:
            return ""
        after = f"; the last one failed:\n{self.trouble}" if self.trouble else ""
        if self.broken:
            return f"no worker for model {self.name!r} could start:\n{self.trouble}"
        if not self.workers:
            return f"no worker is connected for model {self.name!r}{after}"
        return f"the workers for model {self.name!r} are still starting or stopping{after}"
