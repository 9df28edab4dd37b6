"""What `zstreamer_wanted_workers` is worth: workers and late items, against scaling on a queue.

    python -m tests.bench.scaling                 # the table, and a plot into docs/benchmarks

A model of batch time T(n) = β + α·n behind a queue, in virtual time. Every 15 s an autoscaler reads
a number and sets the workers to it; a new one takes some time to start. All get the same arrivals.
Scaling on items is KEDA's rule with the behaviour of Kubernetes' autoscaler: as many workers as
there are items for each of its target, up at once, down after 5 minutes in which fewer would have
done. The target is a guess that its user has to make, so some are shown.
"""

from __future__ import annotations

import math
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from zstreamer.broker.wanted import Load, Wanted

BATCH_SIZE, BETA, ALPHA = 32, 0.020, 0.002
"""A batch of 32 takes 84 ms: some 380 items a second for each worker."""

TARGET = 0.5
"""Seconds in which an item is to be answered."""

BUDGET = 10.0
"""Seconds after which a caller waits no more."""

BOOT, READ = 20.0, 15.0
"""Seconds that a worker takes to start, and between two looks of the autoscaler."""

STEP, TICK = 0.02, 0.26
"""Seconds of the simulation's step, and between two looks of the broker."""

CALM = 300.0
"""Seconds of Kubernetes' stabilization before it scales down."""

MOST = 40
"""Workers at most."""


class Scaler:
    """Says how many workers there should be."""

    name: str

    def look(self, now: float, load: Load) -> None:
        """Called some times a second."""

    def workers(self, now: float, load: Load) -> int:
        """Called when the autoscaler reads."""
        raise NotImplementedError


class ByWanted(Scaler):
    """As the broker's metric says."""

    name = "zstreamer_wanted_workers"

    def __init__(self) -> None:
        self._wanted = Wanted(TARGET)

    def look(self, now: float, load: Load) -> None:
        """See the base."""
        self._wanted.look(now, load)

    def workers(self, now: float, load: Load) -> int:
        """See the base."""
        return self._wanted.workers


class ByItems(Scaler):
    """By a number of items.

    Args:
        target: items a worker.
        running: whether those in batches count too, and not only those that wait.
    """

    def __init__(self, target: int, running: bool = False) -> None:
        self.name = f"{'open items' if running else 'queue length'}, {target} a worker"
        self._target = target
        self._running = running
        self._past: deque[tuple[float, int]] = deque()

    def workers(self, now: float, load: Load) -> int:
        """See the base."""
        items = load.queued + (load.workers * load.busy * BATCH_SIZE if self._running else 0)
        self._past.append((now, max(1, math.ceil(items / self._target))))
        while self._past[0][0] < now - CALM:
            self._past.popleft()
        return max(number for _, number in self._past)


class Outcome(NamedTuple):
    """What became of a load.

    Attributes:
        hours: of workers, from their start on.
        late: share of the items that were answered after the target, or never.
        changes: how often the number of workers was changed.
        trace: seconds, items a second, workers that are warm; each few seconds.
    """

    hours: float
    late: float
    changes: int
    trace: list[tuple[float, float, int]]


@dataclass
class World:
    """One model under one load."""

    scaler: Scaler
    rate: Callable[[float], float]
    seconds: float
    seed: int = 1
    now: float = 0.0
    arrived: int = 0
    answered: int = 0
    late: int = 0
    queued: int = 0
    queue: deque[list[float]] = field(default_factory=deque)  # [arrival, items]
    free_at: list[float] = field(default_factory=lambda: [0.0])
    booting: list[float] = field(default_factory=list)

    def run(self) -> Outcome:
        """Let all of the time pass."""
        rng = random.Random(self.seed)
        hours, changes = 0.0, 0
        look_at = read_at = trace_at = 0.0
        trace = []
        while self.now < self.seconds:
            rate = self.rate(self.now)
            came = _poisson(rng, rate * STEP)
            if came:
                self.queue.append([self.now, came])
                self.arrived += came
                self.queued += came
            self._boot()
            self._work()
            if self.now >= look_at:
                look_at = self.now + TICK
                self.scaler.look(self.now, self._load())
            if self.now >= read_at:
                read_at = self.now + READ
                changes += self._scale(min(MOST, self.scaler.workers(self.now, self._load())))
            if self.now >= trace_at:
                trace_at = self.now + 5.0
                trace.append((self.now, rate, len(self.free_at)))
            hours += (len(self.free_at) + len(self.booting)) * STEP / 3600
            self.now += STEP
        return Outcome(hours, self.late / max(1, self.arrived), changes, trace)

    def _boot(self) -> None:
        while self.booting and self.booting[0] <= self.now:
            self.booting.pop(0)
            self.free_at.append(self.now)

    def _work(self) -> None:
        while self.queue and self.queue[0][0] < self.now - BUDGET:
            _, count = self.queue.popleft()
            self.late += int(count)
            self.queued -= int(count)
        for number, free_at in enumerate(self.free_at):
            if free_at <= self.now and self.queue:
                self.free_at[number] = self._batch()

    def _batch(self) -> float:
        taken: list[tuple[float, int]] = []
        size = 0
        while self.queue and size < BATCH_SIZE:
            head = self.queue[0]
            count = min(int(head[1]), BATCH_SIZE - size)
            taken.append((head[0], count))
            size += count
            head[1] -= count
            if not head[1]:
                self.queue.popleft()
        end = self.now + BETA + ALPHA * size
        self.late += sum(count for arrival, count in taken if end - arrival > TARGET)
        self.queued -= size
        self.answered += size
        return end

    def _load(self) -> Load:
        busy = sum(free_at > self.now for free_at in self.free_at)
        age = self.now - self.queue[0][0] if self.queue else 0.0
        warm = len(self.free_at)
        known = (BATCH_SIZE, BETA, ALPHA) if self.answered else (0, 0.0, 0.0)
        share = busy / warm if warm else 0.0
        return Load(self.arrived, self.answered, self.queued, age, warm, share, *known)

    def _scale(self, number: int) -> bool:
        there = len(self.free_at) + len(self.booting)
        self.booting += [self.now + BOOT] * (number - there)
        for _ in range(there - number):
            if self.booting:
                self.booting.pop()
            else:
                self.free_at.pop()
        return number != there


def _poisson(rng: random.Random, mean: float) -> int:
    if mean <= 0:
        return 0
    if mean > 30:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count += 1
        product *= rng.random()
    return count


# Loads


def steps(now: float) -> float:
    """100 items a second, then 1,500, 3,000 and 300, ten minutes each."""
    return (100.0, 1500.0, 3000.0, 300.0)[min(3, int(now // 600))]


def bursts(now: float) -> float:
    """400 items a second; every ten minutes 2,000 for one minute, and in between 3 s of 2,000."""
    within = now % 600
    return 2000.0 if within < 60 or 300 <= within < 303 else 400.0


def day(now: float) -> float:
    """A day in four hours: from 50 items a second at night to 2,500, with a second hump."""
    hour = now / 600 % 24
    noon = math.exp(-(((hour - 11) / 3) ** 2))
    evening = math.exp(-(((hour - 20) / 2) ** 2))
    return 50 + 2450 * noon + 1600 * evening


LOADS: dict[str, tuple[Callable[[float], float], float]] = {
    "steps": (steps, 2400.0),
    "bursts": (bursts, 3600.0),
    "day": (day, 14400.0),
}

QUEUES, OPENS = (16, 64, 256), (24, 48)
"""Items a worker: of the queue, and of all that is open (a full batch runs 32)."""


def scalers() -> Iterable[Scaler]:
    """All that are compared."""
    return [ByWanted(), *map(ByItems, QUEUES), *(ByItems(each, running=True) for each in OPENS)]


def main(folder: Path) -> None:
    """Print the table; draw the plot."""
    found: dict[str, dict[str, Outcome]] = {}
    print("| load | scaling on | worker-hours | late | changes |\n| --- | --- | --- | --- | --- |")
    for load, (rate, seconds) in LOADS.items():
        found[load] = {each.name: World(each, rate, seconds).run() for each in scalers()}
        for name, outcome in found[load].items():
            late = f"{outcome.late:.1%}" if outcome.late >= 0.001 else f"{outcome.late:.2%}"
            print(f"| {load} | {name} | {outcome.hours:.2f} | {late} | {outcome.changes} |")
    _draw(found, folder / "scaling.svg")


def _draw(found: dict[str, dict[str, Outcome]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(found), figsize=(12, 6), height_ratios=(2, 1))
    for column, (load, outcomes) in enumerate(found.items()):
        above, below = axes[0][column], axes[1][column]
        for name, outcome in outcomes.items():
            own = name == ByWanted.name
            minutes = [each[0] / 60 for each in outcome.trace]
            workers = [each[2] for each in outcome.trace]
            style = {"color": "C3", "lw": 2.0, "zorder": 3} if own else {"lw": 0.9, "alpha": 0.8}
            line = above.plot(minutes, workers, label=name, **style)
            below.scatter(
                outcome.hours, 100 * outcome.late, color=line[0].get_color(), zorder=3 if own else 2
            )
        rates = above.twinx()
        trace = next(iter(outcomes.values())).trace
        rates.fill_between(
            [each[0] / 60 for each in trace], [each[1] for each in trace], alpha=0.12
        )
        rates.set_yticks([])
        above.set_title(load)
        above.set_xlabel("minutes")
        below.set_xlabel("worker-hours")
        below.grid(alpha=0.3)
    axes[0][0].set_ylabel("warm workers (shaded: items/s)")
    axes[1][0].set_ylabel("late items, %")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/benchmarks"))
