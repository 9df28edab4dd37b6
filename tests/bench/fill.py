"""How well a model is kept busy: its share of busy time, batch sizes and latency under load.

The model sleeps β + α·n, so that it takes no CPU from the rest, as an accelerator would not. For
each number of workers β and α are such that full batches are 8,000 items/s in all. An open loop of
100 % sends as many; a closed loop of 100 % has callers for four batches a worker: two fill its
window, two are on their way.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from tests.bench import hold, sleeper
from tests.bench.callers import Spec
from tests.bench.load import Load, Times
from tests.bench.point import CAPACITY, CLOSED, OPEN, Point
from tests.bench.report import Report
from tests.bench.usage import cpu
from tests.helpers.cluster import Cluster, agents, children

BATCH = 64

FIXED_SHARE = 4.0 / (4.0 + 0.02 * BATCH)
"""β's share of a full batch, as with 4 ms + 20 µs · n."""

WORKERS = (1, 2, 4, 8)
LOADS = (10, 25, 50, 75, 90, 100, 150, 300)
"""Per cent."""

CALLERS = 4 * BATCH
"""For each worker, at 100 % of a closed loop."""

PATIENCE = 1.0
"""Seconds that an item of an open loop may take; what overload leaves is refused or given up."""

SETTLING = 8
"""Full batches that a load has run before its window begins, besides a quarter of the window."""

SLICES = 3
"""Parts of a window, for a row's spread."""

CORES_A_PROGRAM = 4
"""One more program of callers for each so many cores of the machine."""


def run(seconds: float) -> Report:
    """Measure every load for so many seconds, then what holding batches back is worth."""
    report = Report("fill")
    for workers in WORKERS:
        for point in points(workers, LOADS, seconds):
            report.add(point.row())
            report.points.append(asdict(point))
    for row in hold.rows(seconds):
        report.add(row)
    return report


def points(workers: int, loads: tuple[int, ...], seconds: float) -> Iterator[Point]:
    """Measure each load, in an open and in a closed loop, on so many workers."""
    with stage(workers) as bench:
        for loop in (OPEN, CLOSED):
            for load in loads:
                yield bench.point(loop, load, seconds)


@contextmanager
def stage(workers: int) -> Iterator[Bench]:
    """Start a broker, so many workers that sleep, and callers."""
    full = BATCH * workers / CAPACITY
    times = {"beta": full * FIXED_SHARE, "alpha": full * (1 - FIXED_SHARE) / BATCH}
    with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        kwargs = {**times, "folder": folder}
        supervisor = cluster.worker(
            "tests.bench.sleeper:Sleeper", num=workers, batch_size=BATCH, init_kwargs=kwargs
        )
        cluster.wait_up()
        cluster.wait_warm(workers)
        programs = max(1, (os.cpu_count() or 1) // CORES_A_PROGRAM)
        with Load(cluster.address, "default", processes=programs) as load:
            pids = {
                "callers": load.pids,
                "broker": [cluster.broker.pid],
                "agents": agents(supervisor),
                "models": children(supervisor),
            }
            yield Bench(workers, times, load, folder, pids)


class Bench:
    """What `stage` has started; measures one load after the other."""

    def __init__(
        self,
        workers: int,
        times: dict[str, float],
        load: Load,
        folder: str,
        pids: dict[str, list[int]],
    ) -> None:
        self.workers = workers
        self._times = times
        self._load = load
        self._folder = folder
        self._pids = pids

    def point(self, loop: str, percent: int, seconds: float) -> Point:
        """Load the workers so much, and see how they fare."""
        begun, before = time.monotonic(), self._spent()
        tally = self._load.measure(self._spec(loop, percent, seconds))
        wall, after = time.monotonic() - begun, self._spent()
        batches = sleeper.diary(self._folder)
        step = (tally.end - tally.start) / SLICES
        starts = [tally.start + number * step for number in range(SLICES)]
        return Point(
            loop=loop,
            workers=self.workers,
            load=percent,
            made=tally.made / seconds,
            answered=tally.answered / seconds,
            busy=[sleeper.busy(batches, at, at + step, self.workers) for at in starts],
            batch=sleeper.mean_batch(batches, tally.start, tally.end),
            longer=sleeper.longer(batches, tally.start, tally.end, **self._times),
            added=Times.of(tally.beyond),
            latency=Times.of(tally.latencies),
            cores={who: (after[who] - before[who]) / wall for who in after},
            errors=dict(tally.errors),
        )

    def _spec(self, loop: str, percent: int, seconds: float) -> Spec:
        full = self._times["beta"] + self._times["alpha"] * BATCH
        warm_up = SETTLING * full + seconds / 4
        if loop == OPEN:
            rate = CAPACITY * percent / 100
            return Spec(rate=rate, warm_up=warm_up, seconds=seconds, timeout=PATIENCE)
        callers = round(CALLERS * self.workers * percent / 100)
        return Spec(callers=callers, warm_up=warm_up, seconds=seconds)

    def _spent(self) -> dict[str, float]:
        """CPU seconds so far, by who spent them."""
        return {who: sum(map(cpu, pids)) for who, pids in self._pids.items()}
