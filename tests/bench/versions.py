"""What callers notice of a shadow, and what routes cost the broker.

On real processes one version answers, and a second one gets a copy of every item or none, in turns.
The model sleeps, so that the two versions share nothing but the broker and the machine.

The core alone, in this process, gets the same messages for a plain model, for a version with a
route, for two with weights, and for a version with a shadow of all items.
"""

from __future__ import annotations

from tests.bench.callers import Spec
from tests.bench.load import Load, Times
from tests.bench.report import LESS, MORE, Report, Row
from tests.bench.tenants import BUNDLE, CLIENTS, CORE_ROUNDS, Core
from tests.helpers.cluster import Cluster, free_port
from tests.helpers.waiting import until
from zstreamer.broker.routes import Route
from zstreamer.cli.operator import order

ROUNDS = 7

MODEL = "sleeper"
BATCH = 16
SLEEP = {"beta": 0.008, "alpha": 0.000125}
"""Full batches are 1,600 items/s."""

OPEN = 2 * BATCH
"""Items that callers keep open: a batch that runs, and one that waits."""

WARM_UP = 1.0

WITHIN, SHARE = 1.03, 0.97
"""What a shadow may make of the latency, and of the throughput."""

COST = 1.1
"""What a route may cost the core; two versions have bundles half as large."""


def run(seconds: float) -> Report:
    """Measure each side for so many seconds in all."""
    report = Report("versions")
    shadow(report, seconds)
    core(report)
    return report


def shadow(report: Report, seconds: float) -> None:
    """Compare callers of a version whose items are copied with those of one whose are not."""
    port = free_port()
    with Cluster(http_port=port) as cluster:
        for version in ("1", "2"):
            cluster.worker(
                "tests.bench.sleeper:Sleeper",
                model=MODEL,
                version=version,
                batch_size=BATCH,
                init_kwargs=SLEEP,
            )
            cluster.wait_warm(1, f"{MODEL}@{version}")
        spec = Spec(callers=OPEN, warm_up=WARM_UP, seconds=seconds / ROUNDS)
        url = f"http://127.0.0.1:{port}"
        compared = skipped = 0
        with Load(cluster.address, MODEL) as load:

            def round_of(version: str | None) -> tuple[Times, float]:
                status, said = order(
                    url, "", "route", MODEL, {"weights": {"1": 1}, "shadow": version}
                )
                assert status == 200, said
                until(lambda: not cluster.open_items(f"{MODEL}@2"))
                tally = load.measure(spec)
                assert not tally.errors, tally.errors
                return Times.of(tally.latencies), tally.rate

            rounds = []
            for number in range(ROUNDS):
                found = {}
                for version in ("2", None)[:: 1 if number % 2 else -1]:
                    found[version] = round_of(version)
                    row = cluster.model(MODEL)["shadow"]
                    if row:
                        compared += row["same"] + row["different"]
                        skipped += row["skipped"]
                rounds.append((found["2"], found[None]))
    with_one, without = zip(*rounds, strict=True)
    name = f"{OPEN} callers, a shadow of all items, against none"
    told = f"{compared:,} copies compared, {skipped:,} items not copied"
    rates = [[rate for _, rate in side] for side in (with_one, without)]
    bound = (MORE, SHARE)
    report.add(Row(f"throughput, {name}", rates[0], "items/s", rates[1], bound, told))
    for words, value in (("median", "median"), ("p99", "most")):
        ours, theirs = ([getattr(each, value) for each, _ in side] for side in (with_one, without))
        report.add(Row(f"latency, {words}, {name}", ours, "ms", theirs, (LESS, WITHIN)))


def core(report: Report) -> None:
    """Compare what an item costs the core, with versions and a route and without."""
    tenants = [""] * CLIENTS
    sides = {
        "one version with a route": (("1",), Route({"1": 1.0})),
        "two versions, 90 to 10": (("1", "2"), Route({"1": 90.0, "2": 10.0})),
        "a shadow of all items": (("1", "2"), Route({"1": 1.0}, shadow="2")),
    }
    plain = Core(tenants)
    for words, (versions, route) in sides.items():
        routed = Core(tenants, versions=versions, route=route)
        rounds = []
        for number in range(CORE_ROUNDS):
            found = {}
            for each in (routed, plain)[:: 1 if number % 2 else -1]:
                found[each] = each.round()
            rounds.append((found[routed], found[plain]))
        ours, theirs = map(list, zip(*rounds, strict=True))
        name = f"the core's CPU, bundles of {BUNDLE}: {words}, against a plain model"
        bound = (LESS, COST) if len(versions) == 1 else None
        report.add(Row(name, ours, "µs/item", theirs, bound))
