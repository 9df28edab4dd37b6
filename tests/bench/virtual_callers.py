"""Callers, a batcher and its workers in virtual time: what a rule of holding is worth.

    python -m tests.bench.virtual_callers          # every load, held against greedy, in a table

Nothing here waits or sleeps: an hour of load takes seconds. The way back of those answered is
``first + each · k`` for the k-th of them, with jitter; a think time comes on top.
"""

from __future__ import annotations

import heapq
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from zstreamer.batching import Batcher, BatchTime

BATCH = 64


@dataclass
class Load:
    """What comes, and when.

    Args:
        callers: of a closed loop.
        think: mean seconds between an answer and the next item.
        spread: whether the think time is exponential (else constant).
        rate: items a second of an open loop beside it.
        burst: items that an open loop sends together.
    """

    callers: int = 0
    think: float = 0.0
    spread: bool = False
    rate: float = 0.0
    burst: int = 1


@dataclass(eq=False)
class Item:
    id: int
    arrived: float
    sent: float
    closed: bool
    cost: float = 0.0
    deadline: float = float("inf")


@dataclass
class Worker:
    batcher: Batcher[Item]
    time: BatchTime
    free_at: float = 0.0
    running: list[Item] = field(default_factory=list)
    used: int = 0
    wake: float = float("inf")
    planned: bool = False
    batch_size: int = BATCH
    held: int = 0

    @property
    def waiting(self) -> int:
        return len(self.batcher)

    @property
    def room(self) -> int:
        return 2 * BATCH - len(self.batcher) - len(self.running)

    @property
    def beta(self) -> float:
        return self.time.beta

    @property
    def alpha(self) -> float:
        return self.time.alpha


@dataclass
class Way:
    """Of an item from a batch's end to the worker again, in seconds."""

    first: float = 0.0008
    each: float = 0.000085
    jitter: float = 0.3
    bundle: int = 4
    no_plan: float = 0.0003
    plan: float = 0.00015


class Cluster:
    def __init__(
        self,
        beta: float,
        alpha: float,
        max_latency: float,
        workers: int = 1,
        way: Way | None = None,
        seed: int = 0,
    ) -> None:
        self.beta, self.alpha = beta, alpha
        self.way = way or Way()
        self.random = random.Random(seed)
        self.now = 0.0
        self.workers = []
        for _ in range(workers):
            time = BatchTime()
            self.workers.append(Worker(Batcher(BATCH, max_latency, None, time), time))
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.queue: list[Item] = []
        self.count = 0
        self.uses = 0
        self.load = Load()
        self.done: list[tuple[float, float]] = []  # when answered, latency
        self.batches: list[tuple[float, int]] = []
        self.thinking = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.events and self.events[0][0] <= end:
            self.now, _, what = heapq.heappop(self.events)
            what()
        self.now = end

    def begin(self, load: Load) -> None:
        """This load from now on; callers of the one before leave as they are answered."""
        self.load = load
        generation = object()
        self.generation = generation
        for n in range(load.callers):
            self.at(self.now + 0.0001 * n, lambda: self.send(1, generation))
        if load.rate:
            self.at(self.now, lambda: self.arrive(generation))

    def arrive(self, generation: object) -> None:
        if generation is not self.generation:
            return
        load = self.load
        self.send(load.burst, None)
        self.at(
            self.now + self.random.expovariate(load.rate / load.burst),
            lambda: self.arrive(generation),
        )

    def send(self, items: int, generation: object) -> None:
        new = []
        for _ in range(items):
            self.count += 1
            item = Item(self.count, self.now, self.now, generation is not None)
            item.generation = generation  # type: ignore[attr-defined]
            new.append(item)
        self.queue += new
        self.dispatch()

    def dispatch(self) -> None:
        from zstreamer.broker import dispatch

        touched = set()
        while self.queue:
            able = [w for w in self.workers if w.room > 0]
            if not able:
                break
            for worker, count in dispatch.earliest(self.now, able, len(self.queue)):
                items, self.queue = self.queue[:count], self.queue[count:]
                for item in items:
                    item.arrived = self.now
                worker.batcher.add(self.now, items)
                self.uses += 1
                worker.used = self.uses
                touched.add(self.workers.index(worker))
        for index in touched:
            self.look(self.workers[index])

    def look(self, worker: Worker) -> None:
        plan = worker.batcher.next(self.now, len(worker.running))
        if worker.running:
            worker.planned = bool(plan.items)
            return
        if plan.items:
            gap = self.way.plan if worker.planned else self.way.no_plan
            worker.planned = False
            worker.running = list(plan.items)
            worker.batcher.remove([i.id for i in plan.items])
            seconds = (self.beta + self.alpha * len(plan.items)) * self.random.uniform(0.99, 1.01)
            worker.free_at = self.now + gap + seconds
            self.batches.append((self.now, len(plan.items)))
            self.at(worker.free_at, lambda: self.end(worker, seconds))
        elif plan.hold_until is not None and plan.hold_until < worker.wake:
            worker.held += 1
            worker.wake = until = plan.hold_until

            def wake() -> None:
                worker.wake = float("inf")
                if not worker.running:
                    self.look(worker)

            self.at(until + 0.0005, wake)

    def end(self, worker: Worker, seconds: float) -> None:
        items, worker.running = worker.running, []
        worker.time.observe(len(items), seconds)
        worker.batcher.ended(self.now, len(items))
        way = self.way
        back = way.first * self.random.uniform(1, 1 + way.jitter)
        for n, item in enumerate(items):
            self.done.append((self.now + back, self.now + way.first / 2 - item.sent))
            generation = item.generation  # type: ignore[attr-defined]
            if not item.closed or generation is not self.generation:
                continue
            think = self.load.think
            if think and self.load.spread:
                think = self.random.expovariate(1 / think)
            if n % way.bundle == 0:
                back += way.each * way.bundle * self.random.uniform(1 - way.jitter, 1 + way.jitter)
            sent = self.now + think + back / 2
            self.at(self.now + think + back, lambda g=generation, s=sent: self.send_at(g, s))
        self.look(worker)

    def send_at(self, generation: object, sent: float) -> None:
        if generation is self.generation:
            self.send(1, generation)


def figures(cluster: Cluster, start: float, end: float) -> tuple[float, float, float, float, float]:
    """Return items/s, mean, p50, p99 of latency in seconds, and the mean batch."""
    times = sorted(latency for when, latency in cluster.done if start <= when < end)
    sizes = [size for when, size in cluster.batches if start <= when < end]
    if not times:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    return (
        len(times) / (end - start),
        statistics.fmean(times),
        times[len(times) // 2],
        times[int(0.99 * len(times))],
        statistics.fmean(sizes) if sizes else 0.0,
    )


def measure(
    load: Load,
    beta: float,
    alpha: float,
    workers: int = 1,
    seconds: float = 20.0,
    way: Way | None = None,
    seed: int = 0,
):
    result = []
    for max_latency in (0.0, 0.1):
        cluster = Cluster(beta, alpha, max_latency, workers, way, seed)
        cluster.begin(load)
        cluster.run(1.0 + seconds)
        result.append(figures(cluster, 1.0, 1.0 + seconds))
    return result


def show(name: str, load: Load, beta: float, alpha: float, workers: int = 1, **more) -> None:
    greedy, held = measure(load, beta, alpha, workers, **more)
    rate, mean, p50, p99 = (h / g if g else 0 for h, g in zip(held[:4], greedy[:4]))
    print(
        f"{name:44} rate {greedy[0]:8.0f} {held[0]:8.0f} x{rate:5.2f}  mean x{mean:5.2f} p50 x{p50:5.2f} p99 x{p99:5.2f}"
        f"  p50 {1000 * greedy[2]:6.1f} {1000 * held[2]:6.1f} ms  batch {greedy[4]:5.1f} {held[4]:5.1f}"
    )


def main() -> None:
    slow, fast = (0.050, 0.00002), (0.004, 0.00002)
    what = sys.argv[1:] or ["closed", "think", "open", "mixed", "workers", "alpha", "change"]
    if "closed" in what:
        for name, (b, a) in (("50ms", slow), ("4ms", fast)):
            for c in (1, 2, 3, 4, 8, 16, 32, 64, 96, 128, 192, 512):
                show(f"{name} closed {c}", Load(c), b, a, seconds=10)
    if "think" in what:
        for name, (b, a) in (("50ms", slow), ("4ms", fast)):
            for think in (0.001, 0.005, 0.020):
                for spread in (False, True):
                    for c in (2, 8, 32, 96):
                        show(
                            f"{name} closed {c} think {think} {'exp' if spread else 'const'}",
                            Load(c, think, spread),
                            b,
                            a,
                        )
    if "open" in what:
        for name, (b, a) in (("50ms", slow), ("4ms", fast)):
            cap = BATCH / (b + a * BATCH)
            for share in (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.95):
                show(f"{name} open {share:.0%}", Load(rate=share * cap), b, a, seconds=60)
            for share in (0.05, 0.25, 0.5):
                for burst in (8, 32):
                    show(
                        f"{name} bursts of {burst} {share:.0%}",
                        Load(rate=share * cap, burst=burst),
                        b,
                        a,
                        seconds=60,
                    )
    if "mixed" in what:
        for name, (b, a) in (("50ms", slow), ("4ms", fast)):
            cap = BATCH / (b + a * BATCH)
            for c in (4, 16, 48):
                for share in (0.05, 0.2, 0.4):
                    show(
                        f"{name} closed {c} + open {share:.0%}",
                        Load(c, rate=share * cap),
                        b,
                        a,
                        seconds=30,
                    )
    if "workers" in what:
        for w in (2, 4):
            for c in (8, 16, 32, 64, 96, 128, 192, 256):
                show(f"50ms {w} workers closed {c}", Load(c), *slow, workers=w)
        for w in (2, 4):
            for c in (8, 32, 128, 256):
                show(f"4ms {w} workers closed {c}", Load(c), *fast, workers=w)
    if "alpha" in what:
        for c in (2, 8, 32, 96):
            show(f"0.2ms+0.5ms closed {c}", Load(c), 0.0002, 0.0005)
        for share in (0.1, 0.5, 0.9):
            show(f"0.2ms+0.5ms open {share:.0%}", Load(rate=share * 2000), 0.0002, 0.0005)
    if "change" in what:
        change()


def change() -> None:
    for name, (b, a) in (("50ms", (0.050, 0.00002)), ("4ms", (0.004, 0.00002))):
        cap = BATCH / (b + a * BATCH)
        kinds = [
            Load(32),
            Load(rate=0.3 * cap),
            Load(8),
            Load(96),
            Load(rate=0.1 * cap),
            Load(16, 0.005, True),
            Load(64),
        ]
        clusters = [Cluster(b, a, m) for m in (0.0, 0.1)]
        for number, kind in enumerate(kinds * 2):
            rows = []
            for cluster in clusters:
                cluster.begin(kind)
                start = cluster.now
                cluster.run(3.0)
                rows.append([figures(cluster, start + s, start + s + 1) for s in (0, 1, 2)])
            if number >= len(kinds) - 1:
                text = "  ".join(
                    f"s{s}: x{rows[1][s][0] / rows[0][s][0]:.2f} mean x{rows[1][s][1] / rows[0][s][1]:.2f}"
                    for s in range(3)
                )
                print(f"{name} change to {kind}: {text}")


if __name__ == "__main__":
    main()
