"""What it costs the broker to be observed: metrics that are read, and traces that are sampled.

Three brokers under the same held load take turns: one without pages and traces, one whose metrics
are scraped every second, one through which every hundredth item goes with a trace of its own. That
is the dearest way to sample 1 %: items of one call share a context.

A broker always counts. What that costs is measured on the core alone, in this process: its CPU
against that of a core whose histograms and tallies count nothing.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import urllib.request
from collections.abc import Iterator

from tests.bench.pairs import SETTLING, Pairs, Sample, Shape
from tests.bench.report import LESS, Report, Row
from tests.bench.tenants import CLIENTS, Core
from tests.helpers.cluster import free_port
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.lots import Lot
from zstreamer.broker.tally import Tally

BUNDLES = (1, 16, 64)

EVERY = 1.0
"""Seconds between two scrapes."""

ROUND = EVERY / (1 - SETTLING)
"""Seconds of a round, so that one scrape falls into what is measured of it."""

SAMPLED = 100
"""One of so many items."""

METRICS, TRACES = 1.03, 1.05
"""What either may cost."""

CORE_ROUNDS = 15


def run(seconds: float) -> Report:
    """Measure each side of each row for so many seconds."""
    report = Report("observed")
    for bundle in BUNDLES:
        spent = held(report, Shape(bundle), max(3, round(seconds / ROUND)))
        counting(report, bundle, spent)
    return report


def held(report: Report, shape: Shape, rounds: int) -> float:
    """Compare the CPU time of an item; return the µs that it is without metrics and traces."""
    port = free_port()
    with (
        Pairs(shape) as plain,
        Pairs(shape, http_port=port) as shown,
        Pairs(shape._replace(traced=SAMPLED)) as traced,
        scraped(port),
    ):
        sides = plain, shown, traced
        found: list[list[Sample]] = [[] for _ in sides]
        for number in range(rounds):
            for place in range(len(sides))[:: 1 if number % 2 else -1]:
                found[place].append(sides[place].round(ROUND))
    without, metrics, traces = ([sample.cpu for sample in side] for side in found)
    for name, ours, bound, side in (
        ("metrics scraped every second, against no pages", metrics, METRICS, found[1]),
        (f"traces of 1 of {SAMPLED} items, against none", traces, TRACES, found[2]),
    ):
        told = f"bundles {side[-1].bundles}"
        report.add(Row(f"{name}: {shape}", ours, "µs/item", without, (LESS, bound), told))
    return statistics.median(without)


@contextlib.contextmanager
def scraped(port: int) -> Iterator[None]:
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


# The core alone


def counting(report: Report, bundle: int, spent: float) -> None:
    """Compare the core with one that counts nothing.

    Args:
        report: gets a row.
        bundle: items a message.
        spent: µs of the broker's CPU that an item takes.
    """
    counts, silent = (Core([""] * CLIENTS, bundle=bundle) for _ in range(2))
    silence(silent.core)
    shares, costs = [], []
    for number in range(CORE_ROUNDS):
        took = [0.0, 0.0]
        for side in (0, 1)[:: 1 if number % 2 else -1]:
            took[side] = (counts, silent)[side].round()
        costs.append(took[0] - took[1])
        shares.append(1 + costs[-1] / spent)
    name = f"counting, of the broker's CPU an item: bundles of {bundle}"
    told = f"{statistics.median(costs):.2f} µs of {spent:.3g} µs/item"
    report.add(Row(name, shares, "×", bound=(LESS, METRICS), told=told))


class Silent(Tally):
    """One that does not count what is admitted."""

    __slots__ = ()

    def admit(self, lot: Lot) -> None:
        """Count nothing."""


class Mute:
    """A histogram that counts nothing."""

    def observe(self, value: float, count: int = 1) -> None:
        """Count nothing."""


def silence(core: BrokerCore) -> None:
    """Let a core whose peers are all there count nothing."""
    mute = Mute()
    for message in ("submit", "work", "report", "answer"):
        setattr(core.scheduler.bundles, message, mute)
    for client in core.clients.values():
        client._answers = mute
    for model in core.models.values():
        model.tally.__class__ = Silent
        model.tally.queued = model.tally.total = mute
