"""How long one item takes, client → broker → worker → client, idle and under load.

The model returns its input, so that what is left is the way. Idle, it is compared with the same
hops in bare pyzmq (`tests.bench.hops`), in turns. Under load, the items come as an open loop: at
random moments (Poisson), whether or not others have been answered.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from tests.bench.callers import Spec, Tally
from tests.bench.hops import Hops
from tests.bench.load import Load
from tests.bench.report import LESS, Report, Row
from tests.helpers.cluster import Cluster
from zstreamer import Client

ROUNDS = 5
LOADS = (10, 50, 80)
"""Per cent of the capacity."""

OPEN = 64
"""Callers that ask again when answered, while the capacity is measured."""

SLOWER = (LESS, 3.0)
"""How much longer the median item may take than in bare pyzmq."""

MODEL = "echo"
ITEM = "x" * 64
WARM_UP = 50
"""Round trips before the first round; first ones open connections and fill caches."""


def run(seconds: float) -> Report:
    """Measure idle round trips for so many seconds on each side, then as long at each load."""
    report = Report("roundtrip")
    with Cluster(tcp=True) as cluster, cluster.worker("echo", model=MODEL, batch_size=64):
        with cluster.client(model=MODEL) as client:
            client.wait_ready(30)
            idle(report, client, seconds)
        with Load(cluster.address, MODEL) as load:
            under_load(report, load, seconds)
    return report


def idle(report: Report, client: Client, seconds: float) -> None:
    """Compare one item at a time with the bare hops, with and without a model's process."""
    with Hops(model=True) as hops, Hops(model=False) as short:
        ways: list[Callable[[], object]] = [
            lambda: client.predict([ITEM]),
            lambda: hops(ITEM.encode()),
            lambda: short(ITEM.encode()),
        ]
        for way in ways:
            for _ in range(WARM_UP):
                way()
        rounds = [[trips(way, seconds / ROUNDS) for way in ways] for _ in range(ROUNDS)]
    ours, bare, bare_short = zip(*rounds, strict=True)
    for share, bound in ((50, SLOWER), (99, None)):
        name = f"idle p{share}, against the same hops in bare pyzmq"
        report.add(_row(name, ours, bare, share, bound))
    report.add(_row("idle p50, against bare pyzmq without a model's process", ours, bare_short, 50))


def under_load(report: Report, load: Load, seconds: float) -> None:
    """Tell the times of items at some shares of the capacity."""

    def measure(**spec: float) -> Tally:
        tally = load.measure(Spec(seconds=seconds / ROUNDS, items=[ITEM], **spec))
        if tally.errors:
            report.notes.append(f"items that were not answered, at {spec}: {tally.errors}")
        return tally

    closed = [measure(callers=OPEN) for _ in range(ROUNDS)]
    rates = [tally.answered / (tally.end - tally.start) for tally in closed]
    report.add(Row(f"capacity of one client, {OPEN} callers", rates, "items/s"))
    rate = statistics.median(rates)
    for share in LOADS:
        rounds = [measure(rate=rate * share / 100).latencies for _ in range(ROUNDS)]
        for per_cent in (50, 99):
            name = f"{share} % load, p{per_cent}"
            told = f"{rate * share / 100:,.0f} items/s"
            report.add(_row(name, rounds, (), per_cent, told=told))


def trips(way: Callable[[], object], seconds: float) -> list[float]:
    """Return the µs of each of the round trips that fit into so many."""
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end or len(times) < 2:
        way()
        times.append((time.perf_counter() - start) * 1e6)
    return times


def _row(
    name: str,
    rounds: Sequence[Sequence[float]],
    references: Sequence[Sequence[float]],
    share: int,
    bound: tuple[str, float] | None = None,
    told: str = "",
) -> Row:
    """Return a row of one percentile of each round."""
    values, others = ([percentile(each, share) for each in side] for side in (rounds, references))
    return Row(name, values, "µs", others, bound, told)


def percentile(times: Sequence[float], share: int) -> float:
    """Return the time within which so many per cent of all lie."""
    return sorted(times)[min(len(times) - 1, len(times) * share // 100)]
