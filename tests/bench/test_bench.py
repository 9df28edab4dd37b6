"""The benchmarks' machinery, at a tiny size: that loads are what they are called, not how fast."""

import json
import os
import sys
import time
import types

import pytest

from tests.bench import __main__ as command
from tests.bench import observed, page, roundtrip, tenants, usage, versions
from tests.bench.broker import Bench
from tests.bench.hops import Hops
from tests.bench.pairs import Pairs, Shape
from tests.bench.report import LESS, MORE, Report, Row, table
from tests.bench.tenants import CLIENTS, Core
from tests.bench.through import Loop, Through
from zstreamer.broker.metrics import Metrics
from zstreamer.histogram import Histogram

FAST = Row("as fast as bare", [2.0, 4.0, 3.0], "µs", [1.0, 1.0, 1.0], (LESS, 3.0), "by a hair")
SLOW = Row("busy", [0.5, 0.25, 0.5], "", bound=(MORE, 0.97))


@pytest.fixture
def bench(monkeypatch):
    """Put a report, or an error, in the place of one of the benchmarks."""

    def bench(name, outcome):
        def run(seconds):
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        module = types.ModuleType(name)
        module.run = run
        monkeypatch.setitem(sys.modules, f"tests.bench.{name}", module)

    return bench


def test_a_row_is_the_median_of_its_rounds_and_its_ratio_that_of_their_ratios():
    row = Row("x", [10.0, 40.0, 30.0], "items/s", [10.0, 10.0, 20.0])
    assert (row.value, row.reference, row.ratio) == (30.0, 10.0, 1.5)
    assert row.spread == pytest.approx(0.5)
    assert row.holds is None


@pytest.mark.parametrize(
    ("row", "holds"),
    [
        (Row("", [2.0], "", [1.0], (MORE, 2.0)), True),
        (Row("", [1.9], "", [1.0], (MORE, 2.0)), False),
        (Row("", [4.0], "", [2.0], (LESS, 2.0)), True),
        (Row("", [4.1], "", (), (LESS, 4.0)), False),
    ],
)
def test_a_bound_is_one_of_the_ratio_or_of_the_value_where_there_is_no_reference(row, holds):
    assert row.holds is holds


def test_the_table_has_a_line_for_each_row_and_what_is_to_be_noted():
    lines = table(Report("x", [FAST, SLOW], ["mind this"])).splitlines()
    assert lines[0].startswith("x on ")
    assert " ".join(lines[1].split()) == ("value unit spread reference ratio bound holds what")
    assert " ".join(lines[2].split()) == "3 µs ±33% 1 3 <= 3.0 yes as fast as bare: by a hair"
    assert " ".join(lines[3].split()) == "0.5 ±25% >= 0.97 NO busy"
    assert lines[4] == "* mind this"


def test_the_command_writes_json_and_ends_with_0_where_all_bounds_hold(bench, tmp_path, capsys):
    bench("broker", Report("broker", [FAST]))
    path = tmp_path / "figures.json"
    assert command.main(["broker", "--json", str(path)]) == 0
    assert "as fast as bare" in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert found["bench"] == "broker"
    assert "cores" in found["machine"]
    assert found["rows"] == [
        {
            "name": "as fast as bare",
            "value": 3.0,
            "unit": "µs",
            "spread": pytest.approx(1 / 3),
            "reference": 1.0,
            "ratio": 3.0,
            "bound": "<= 3.0",
            "holds": True,
            "told": "by a hair",
        }
    ]


def test_the_command_ends_with_1_where_a_bound_does_not_hold(bench):
    bench("fill", Report("fill", [FAST, SLOW]))
    assert command.main(["fill"]) == 1


def test_all_goes_on_after_a_benchmark_that_fails_and_ends_with_1(bench, tmp_path, capsys):
    for name in command.BENCHES:
        bench(name, Report(name, [FAST]))
    bench("mixed", RuntimeError("no torch here"))
    path = tmp_path / "figures.json"
    assert command.main(["all", "--json", str(path), "--seconds", "1"]) == 1
    found = json.loads(path.read_text())
    assert [each["bench"] for each in found] == list(command.BENCHES)
    assert [each["bench"] for each in found if each["error"]] == ["mixed"]
    assert "no torch here" in capsys.readouterr().out


def test_what_a_process_has_used_counts_all_its_threads():
    before = usage.cpu(os.getpid())
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    assert usage.cpu(os.getpid()) - before == pytest.approx(0.05, abs=0.04)
    assert usage.calibration() > 0


@pytest.mark.parametrize(
    "shape",
    [
        Shape(1, workers=4, clients=4, flight=4),
        Shape(4, workers=1, clients=1, flight=1),
        Shape(16, workers=8, clients=8, flight=4),
        Shape(64, workers=4, clients=4, flight=2),
        Shape(1, workers=2, clients=2, flight=2, size=10**6),
    ],
    ids=str,
)
def test_a_hold_keeps_every_way_at_k(shape):
    with Pairs(shape) as pairs:
        pairs.trace(10)
        sample = pairs.round(0.6)
    assert sample.cpu > 0
    assert sample.rate > 0
    assert min(sample.bundles) >= 0.9 * shape.bundle
    # Two REPORTs for the same client may now and then be read in one turn.
    assert max(sample.bundles) <= 2 * shape.bundle


def test_what_a_core_writes_down_is_all_that_it_counts():
    counting, writing = (Core([""] * CLIENTS, bundle=4) for _ in range(2))
    counts = observed.written_down(writing.core)
    assert counting.round() > 0 and writing.round() > 0
    before, later = (shown(each.core) for each in (counting, writing))
    assert before != later
    for count, given in counts:
        count(*given)
    assert shown(writing.core) == before


def shown(core):
    """What a core's metrics show of items and messages."""
    page = Metrics(core, Histogram()).text().decode()
    names = ("zstreamer_bundle", "zstreamer_items", "zstreamer_queue_s", "zstreamer_item_s")
    return [line for line in page.splitlines() if line.startswith(names)]


def test_a_hold_goes_on_after_a_pause_in_which_its_workers_count_as_stalled():
    with Pairs(Shape(4, workers=2, clients=2, flight=2)) as pairs:
        pairs.round(0.2)
        assert pairs.idle(3.5) >= 0
        assert pairs.round(0.4).rate > 0


@pytest.mark.parametrize("middle", ["broker", "proxy", "relay"])
@pytest.mark.parametrize(("size", "number"), [(64, 4), (10**6, 1)])
def test_a_closed_loop_runs_only_in_its_rounds(middle, size, number):
    loop = Loop(workers=2, clients=3, open=number, batch=4, size=size)
    with Through(middle, loop) as through:
        sample = through.round(0.3)
        answered = through.answered()
        time.sleep(0.1)
        assert through.answered() - answered <= loop.clients * loop.open
        assert through.round(0.2).rate > 0
    assert sample.rate > 0
    assert sample.cpu > 0
    # Items and messages are counted at two moments: one that is on its way may be missing.
    assert sample.bundles.answer >= 0.9
    assert set(through.busy) == {middle, "clients", "workers"}


def test_the_brokers_benchmark_has_its_rows(capsys):
    bench = Bench(seconds=0.3, rounds=1)
    small = Shape(4, workers=2, clients=2, flight=2)
    bench.held(small)
    bench.floor(4)
    bench.grown(Shape(4, workers=1, clients=1, flight=1), small._replace(flight=1))
    bench.idle(small)
    bench.free(Loop(workers=1, clients=2, open=2))
    bench.against_proxy(Loop(workers=1, clients=2, open=2))
    names = [row.name for row in bench.report.rows]
    assert [name.split(":")[0] for name in names] == [
        "held",
        "floor",
        "growth, heartbeats apart",
        "idle",
        "free-running",
        "against zmq.proxy",
        "the same, CPU of broker and proxy",
    ]
    assert bench.report.rows[0].told.startswith("bundles ")
    assert bench.report.rows[2].bound == (LESS, 1.2)
    assert bench.report.rows[5].ratio > 0
    assert len(bench.calibrations) == 7
    assert len(bench.report.notes) == 2


@pytest.mark.parametrize("model", [True, False])
def test_the_bare_hops_return_what_is_sent(model):
    with Hops(model=model) as hops:
        assert hops(b"x") == b"x"
        assert hops(b"y" * 100_000) == b"y" * 100_000


def test_the_round_trips_benchmark_has_its_rows(monkeypatch, capsys):
    monkeypatch.setattr(roundtrip, "ROUNDS", 1)
    monkeypatch.setattr(roundtrip, "WARM_UP", 2)
    report = roundtrip.run(0.2)
    assert [row.name.split(",")[0] for row in report.rows] == [
        *("idle p50", "idle p99", "idle p50", "capacity of one client"),
        *(f"{load} % load" for load in (10, 10, 50, 50, 80, 80)),
    ]
    assert report.rows[0].bound == (LESS, 3.0)
    assert report.rows[0].ratio > 0


def test_what_routes_cost_the_core_has_its_rows(monkeypatch, capsys):
    monkeypatch.setattr(versions, "CORE_ROUNDS", 1)
    monkeypatch.setattr(tenants, "TURNS", 2)
    report = Report("versions")
    versions.core(report)
    assert [row.bound for row in report.rows] == [(LESS, versions.COST), None, None]
    assert all(row.ratio > 0 for row in report.rows)


def test_the_longest_task_of_each_update_of_a_page_is_its_frame():
    def task(start, took, thread=1, name="RunTask"):
        return {"name": name, "pid": 7, "tid": thread, "ts": start * 1e6, "tdur": took * 1e3}

    main = {"name": "thread_name", "pid": 7, "tid": 1, "args": {"name": "CrRendererMain"}}
    first = [task(1.0, 9), task(1.02, 12), task(1.05, 0.5), task(1.01, 50, thread=2)]
    second = [task(2.0, 3), task(2.0, 30, name="Layout"), task(1.5, 0.9)]
    assert page.longest_tasks([main, *first, *second]) == [12, 3]
