"""Callers, a broker's dispatch, batchers and models in virtual time.

Nothing here waits or sleeps: a minute of load takes seconds, and the same seed gives the same
figures. The batcher and the dispatch are the real ones. See `tests.bench.virtual_callers`.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from tests.bench.cycle import BATCH, Model, best_rate
from zstreamer.batching import Batcher, BatchTime
from zstreamer.broker import dispatch
from zstreamer.broker.gathering import Gathering

LATE = 0.0005
"""Seconds by which a timer is late."""

HEARD = 0.002
"""Seconds after which the broker hears that a batch has begun."""

STAGGER = 0.0001
"""Seconds between the first items of two callers."""


@dataclass(frozen=True)
class Load:
    """What comes, and when.

    Args:
        callers: of a closed loop.
        think: mean seconds between an answer and the next item.
        spread: whether the think time is exponential, else constant.
        rate: items a second of an open loop beside it.
        burst: items that the open loop sends together.
    """

    callers: int = 0
    think: float = 0.0
    spread: bool = False
    rate: float = 0.0
    burst: int = 1

    def __str__(self) -> str:
        parts = []
        if self.callers:
            parts.append(f"closed {self.callers}")
        if self.think:
            kind = "exponential" if self.spread else "constant"
            parts.append(f"think {1e3 * self.think:g} ms {kind}")
        if self.rate:
            parts.append(f"open {self.rate:,.0f}/s")
        if self.burst > 1:
            parts.append(f"bursts of {self.burst}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Way:
    """Of an item from a batch's end to the worker again, in seconds.

    Args:
        first: of the first item.
        each: that every further one adds.
        jitter: share by which both vary.
        bundle: items that come together.
        planned: from a batch's end to the next one's begin, where its plan lay ready.
        unplanned: the same, where none did.
    """

    first: float = 0.0008
    each: float = 0.000085
    jitter: float = 0.3
    bundle: int = 4
    planned: float = 0.00015
    unplanned: float = 0.0003

    def back(self, items: float) -> float:
        """Return the mean seconds until so many items are back."""
        return self.first * (1 + self.jitter / 2) + self.each * items


class Figures(NamedTuple):
    """Of one load: items a second, seconds of latency, and the mean items of a batch."""

    rate: float
    mean: float
    p50: float
    p99: float
    batch: float


@dataclass(eq=False)
class _Item:
    """loop: of a caller who asks again; None where nobody does."""

    id: int
    arrived: float
    sent: float
    loop: object | None
    cost: float = 0.0
    deadline: float = math.inf


@dataclass(eq=False)
class _Worker:
    """What `dispatch` needs to know of it, and what its model does."""

    batcher: Batcher[_Item]
    time: BatchTime
    free_at: float = 0.0
    runs: list[_Item] = field(default_factory=list)
    running: list[_Item] = field(default_factory=list)
    used: int = 0
    wake_at: float = math.inf
    planned: bool = False
    gathers: bool = False
    goes: bool = False
    max_latency: float = 0.0
    batch_size: int = BATCH

    @property
    def waiting(self) -> int:
        return len(self.batcher) + len(self.runs) - len(self.running)

    @property
    def assigned(self) -> int:
        return self.waiting

    @property
    def room(self) -> int:
        return 2 * BATCH - len(self.batcher) - len(self.runs)

    @property
    def beta(self) -> float:
        return self.time.beta

    @property
    def alpha(self) -> float:
        return self.time.alpha


class Cluster:
    """Workers, and one load after the other.

    Args:
        model: that all workers have.
        max_latency: of their batchers, in seconds.
        workers: how many.
        seed: of everything that is random.
    """

    def __init__(
        self,
        model: Model,
        max_latency: float,
        workers: int = 1,
        way: Way | None = None,
        seed: int = 0,
        gathers: bool = True,
    ) -> None:
        self.now = 0.0
        self._model = model
        self._way = way or Way()
        self._random = random.Random(seed)
        # Of their own, so that two clusters of one seed have the same arrivals, held or not.
        self._arrivals = random.Random(seed)
        self._workers = []
        for _ in range(workers):
            time = BatchTime()
            batcher: Batcher[_Item] = Batcher(BATCH, max_latency, None, time)
            self._workers.append(_Worker(batcher, time, max_latency=max_latency))
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._queue: list[_Item] = []
        self._gathering = Gathering() if gathers else None
        self._load = Load()
        self._loop: object | None = None
        self._answers: list[tuple[float, float]] = []  # when, and after how many seconds
        self._batches: list[tuple[float, int]] = []

    def begin(self, load: Load) -> None:
        """This load from now on; callers of the one before leave as they are answered."""
        self._load = load
        self._loop = loop = object()
        for n in range(load.callers):
            self._at(self.now + STAGGER * n, lambda: self._ask(loop))
        if load.rate:
            self._at(self.now, lambda: self._arrive(loop))

    def run(self, seconds: float) -> None:
        """Go on for so many seconds."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def figures(self, start: float, end: float) -> Figures:
        """Return what was answered between two moments, and how."""
        times = sorted(seconds for when, seconds in self._answers if start <= when < end)
        sizes = [size for when, size in self._batches if start <= when < end]
        if not times or not sizes:
            return Figures(0.0, 0.0, 0.0, 0.0, 0.0)
        return Figures(
            rate=len(times) / (end - start),
            mean=statistics.fmean(times),
            p50=times[len(times) // 2],
            p99=times[int(0.99 * len(times))],
            batch=statistics.fmean(sizes),
        )

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    # Arrivals

    def _arrive(self, loop: object) -> None:
        """Items of the open loop, which does not wait for answers."""
        if loop is not self._loop:
            return
        load = self._load
        self._send([self._item(self.now, None) for _ in range(load.burst)])
        gap = self._arrivals.expovariate(load.rate / load.burst)
        self._at(self.now + gap, lambda: self._arrive(loop))

    def _ask(self, loop: object, sent: float | None = None) -> None:
        """One item of a caller of the closed loop; ``sent`` where the way there took a while."""
        if loop is self._loop:
            self._send([self._item(self.now if sent is None else sent, loop)])

    def _item(self, sent: float, loop: object | None) -> _Item:
        return _Item(next(self._numbers), self.now, sent, loop)

    def _send(self, items: list[_Item]) -> None:
        self._queue += items
        if self._gathering is not None and items:
            self._gathering.came(self.now, len(items))
        touched = self._gather()
        while self._queue:
            able = [worker for worker in self._workers if worker.room > 0]
            if not able:
                break
            for worker, number in dispatch.earliest(self.now, able, len(self._queue)):
                self._give(worker, self._queue[:number])
                del self._queue[:number]
                touched[id(worker)] = worker
        for worker in touched.values():
            self._look(worker)

    def _gather(self) -> dict[int, _Worker]:
        """Have workers gather, if any is to; return those that have been told something."""
        able = [worker for worker in self._workers if worker.room > 0]
        touched: dict[int, _Worker] = {}
        if self._gathering is None or not able:
            return touched
        out = sum(len(w.batcher) + len(w.runs) for w in self._workers)
        queued = len(self._queue)
        shares = self._gathering.shares(self.now, queued, out, able)
        for worker in able if shares is None else ():
            worker.batcher.told(None)
            if worker.gathers:
                worker.gathers = False
                touched[id(worker)] = worker
        for worker, number, more in shares or ():
            worker.gathers = more
            worker.goes |= not more
            worker.batcher.told(more)
            self._give(worker, self._queue[:number])
            del self._queue[:number]
            touched[id(worker)] = worker
            if not more:
                worker.free_at = self.now + worker.time(worker.assigned)
        if self._gathering.look_at < math.inf:
            self._at(self._gathering.look_at + LATE, lambda: self._send([]))
        return touched

    def _give(self, worker: _Worker, items: list[_Item]) -> None:
        if not items:
            return
        for item in items:
            item.arrived = self.now
        worker.used = next(self._numbers)
        worker.batcher.add(self.now, items)

    # Batches

    def _look(self, worker: _Worker) -> None:
        plan = worker.batcher.next(self.now, len(worker.runs))
        if worker.runs:
            worker.planned = bool(plan.items)
        elif plan.items:
            self._begin_batch(worker, list(plan.items))
        elif plan.hold_until is not None and plan.hold_until < worker.wake_at:
            worker.wake_at = plan.hold_until
            self._at(plan.hold_until + LATE, lambda: self._wake(worker))

    def _wake(self, worker: _Worker) -> None:
        worker.wake_at = math.inf
        if not worker.runs:
            self._look(worker)

    def _begin_batch(self, worker: _Worker, items: list[_Item]) -> None:
        gap = self._way.planned if worker.planned else self._way.unplanned
        worker.planned = False
        worker.runs = items
        worker.batcher.begun([item.id for item in items])
        seconds = self._model(len(items)) * self._random.uniform(0.99, 1.01)
        self._batches.append((self.now, len(items)))
        self._at(self.now + HEARD, lambda: self._hear(worker, items))
        self._at(self.now + gap + seconds, lambda: self._end_batch(worker, seconds))

    def _hear(self, worker: _Worker, items: list[_Item]) -> None:
        """The broker hears that these have begun."""
        if worker.runs is items:
            worker.running = items
            worker.gathers = worker.goes = False
            worker.free_at = self.now + worker.time(len(items))

    def _end_batch(self, worker: _Worker, seconds: float) -> None:
        items, worker.runs, worker.running = worker.runs, [], []
        worker.free_at = self.now
        worker.time.observe(len(items), seconds)
        worker.batcher.ended(self.now, len(items))
        if self._gathering is not None:
            self._gathering.ended(self.now, len(items), worker.beta)
        self._answer(items)
        self._send([])
        self._look(worker)

    def _answer(self, items: list[_Item]) -> None:
        way, chance = self._way, self._random
        back = way.first * chance.uniform(1, 1 + way.jitter)
        for n, item in enumerate(items):
            self._answers.append((self.now + back, self.now + way.first / 2 - item.sent))
            if item.loop is None or item.loop is not self._loop:
                continue
            if n % way.bundle == 0:
                back += way.each * way.bundle * chance.uniform(1 - way.jitter, 1 + way.jitter)
            asked = self.now + self._think()
            self._at(asked + back, lambda o=item.loop, s=asked + back / 2: self._ask(o, s))

    def _think(self) -> float:
        think = self._load.think
        return self._random.expovariate(1 / think) if think and self._load.spread else think


def measure(
    load: Load,
    model: Model,
    max_latency: float,
    workers: int = 1,
    seconds: float = 10.0,
    settling: float = 1.0,
    way: Way | None = None,
    seed: int = 0,
    gathers: bool = True,
) -> Figures:
    """Return the figures of a load that has been running for ``settling`` seconds."""
    cluster = Cluster(model, max_latency, workers, way, seed, gathers)
    cluster.begin(load)
    cluster.run(settling + seconds)
    return cluster.figures(settling, settling + seconds)


def changing(
    loads: list[Load], model: Model, max_latency: float, each: float = 3.0, seed: int = 0
) -> list[list[Figures]]:
    """Return the figures of each second of loads that follow each other every ``each`` seconds."""
    cluster = Cluster(model, max_latency, seed=seed)
    found = []
    for load in loads:
        start = cluster.now
        cluster.begin(load)
        cluster.run(each)
        seconds = range(int(each))
        found.append([cluster.figures(start + n, start + n + 1) for n in seconds])
    return found


def formula(callers: int, model: Model, way: Way | None = None) -> float:
    """Return the best rate of callers of one worker whose way back is this."""
    way = way or Way()
    return best_rate(callers, model, lambda n: way.back(n) + way.unplanned, way.planned)
