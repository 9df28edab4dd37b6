"""What it costs the broker to be observed: metrics that are read, and traces that are sampled.

One broker under a held load, in turns: left alone, its metrics scraped every second, and every
hundredth item with a trace of its own. That is the dearest way to sample 1 %, since items of one
call share a context. It is one broker because two never cost the same to some percent.

A broker always counts. What that costs is a part of either side, and too small to be seen as the
difference of two cores. So a core alone, in this process, writes down what it would count, and that
is counted afterwards, with the clock running.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import TypeAlias

from tests.bench.pairs import SETTLING, Pairs, Sample, Shape
from tests.bench.report import LESS, Report, Row
from tests.bench.tenants import CLIENTS, Core
from tests.helpers.cluster import free_port
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.lots import Lot
from zstreamer.broker.tally import Tally
from zstreamer.histogram import Histogram, Sizes

BUNDLES = (1, 16, 64)

EVERY = 1.0
"""Seconds between two scrapes."""

ROUND = EVERY / (1 - SETTLING)
"""Seconds of a round, so that one scrape falls into what is measured of it."""

SAMPLED = 100
"""One of so many items."""

METRICS, TRACES = 1.03, 1.05
"""What either may cost."""

COUNTED = 5
"""Rounds whose counts are made."""


def run(seconds: float) -> Report:
    """Measure each side of each row for so many seconds."""
    report = Report("observed")
    for bundle in BUNDLES:
        spent = held(report, Shape(bundle), max(3, round(seconds / ROUND)))
        counting(report, bundle, spent)
    return report


def held(report: Report, shape: Shape, rounds: int) -> float:
    """Compare the CPU time of an item; return the µs that it is while nobody looks."""
    port = free_port()
    found: dict[Side, list[Sample]] = {side: [] for side in SIDES}
    with Pairs(shape, http_port=port) as pairs:
        for number in range(rounds):
            for side in SIDES[:: 1 if number % 2 else -1]:
                with side(pairs, port):
                    found[side].append(pairs.round(ROUND))
    alone, metrics, traces = ([sample.cpu for sample in found[side]] for side in SIDES)
    for name, ours, bound, side in (
        ("metrics scraped every second, against never", metrics, METRICS, scraped),
        (f"traces of 1 of {SAMPLED} items, against none", traces, TRACES, traced),
    ):
        told = f"bundles {found[side][-1].bundles}"
        report.add(Row(f"{name}: {shape}", ours, "µs/item", alone, (LESS, bound), told))
    return statistics.median(alone)


@contextlib.contextmanager
def left_alone(pairs: Pairs, port: int) -> Iterator[None]:
    """Do nothing."""
    yield


@contextlib.contextmanager
def scraped(pairs: Pairs, port: int) -> Iterator[None]:
    """Read the metrics all the time, as Prometheus does."""
    end = threading.Event()

    def scrape() -> None:
        while not end.wait(EVERY):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as page:
                page.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@contextlib.contextmanager
def traced(pairs: Pairs, port: int) -> Iterator[None]:
    """Sample items."""
    pairs.trace(SAMPLED)
    try:
        yield
    finally:
        pairs.trace(0)


Side: TypeAlias = Callable[[Pairs, int], contextlib.AbstractContextManager[None]]

SIDES: tuple[Side, ...] = (left_alone, scraped, traced)


# Counting alone


def counting(report: Report, bundle: int, spent: float) -> None:
    """Compare what is counted for an item with all that the broker does for it.

    Args:
        report: gets a row.
        bundle: items a message.
        spent: µs of the broker's CPU that an item takes.
    """
    way = Core([""] * CLIENTS, bundle=bundle)
    counts = written_down(way.core)
    costs = []
    for _ in range(COUNTED):
        counts.clear()
        way.round()
        begun = time.thread_time_ns()
        for count, given in counts:
            count(*given)
        costs.append((time.thread_time_ns() - begun) / 1e3 / way.items)
    name = f"all that the broker does for an item, against that without counting, k={bundle}"
    told = f"counting takes {statistics.median(costs):.2f} of {spent:.3g} µs"
    shares = [spent / (spent - cost) for cost in costs]
    report.add(Row(name, shares, "×", bound=(LESS, METRICS), told=told))


Counts: TypeAlias = list[tuple[Callable[..., None], tuple[object, ...]]]


def written_down(core: BrokerCore) -> Counts:
    """Have a core whose peers are all there write down what it counts instead; return where to."""
    counts: Counts = []
    bundles = core.scheduler.bundles
    for message in ("submit", "work", "report", "answer"):
        setattr(bundles, message, Later(getattr(bundles, message), counts))
    for client in core.clients.values():
        client._answers = bundles.answer
    for model in core.models.values():
        tally = model.tally
        tally.queued, tally.total = Later(tally.queued, counts), Later(tally.total, counts)
        tally.__class__ = _tally_later(counts)
    return counts


class Later:
    """A histogram whose observations are written down."""

    def __init__(self, histogram: Histogram | Sizes, counts: Counts) -> None:
        self._histogram, self._counts = histogram, counts

    def observe(self, *given: object) -> None:
        """Write it down."""
        self._counts.append((self._histogram.observe, given))

    def __getattr__(self, name: str) -> object:
        return getattr(self._histogram, name)


def _tally_later(counts: Counts) -> type[Tally]:
    class TallyLater(Tally):
        __slots__ = ()

        def admit(self, lot: Lot) -> None:
            counts.append((super().admit, (lot,)))

    return TallyLater
