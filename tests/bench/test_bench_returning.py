"""The benchmark of callers who return, at a tiny size: that its loads and bounds are as said."""

import json

import pytest

from tests.bench import __main__ as command
from tests.bench import returning, returning_plots, sides, web_others, web_peers, web_rounds
from tests.bench.callers import Spec, Tally
from tests.bench.callers_threads import calling, load
from tests.bench.cycle import Model, WayBack, best_rate, line
from tests.bench.report import LESS, MORE, Report
from tests.bench.sides import ASYNCIO, GEVENT, GREEDY, HELD, THREADS, Outcome, Stage
from tests.bench.sleeper import Batch
from tests.bench.web_ours import GATEWAY
from tests.bench.web_wrk import Sample

QUICK = Model(0.005, 0.0)
SHORT = 0.2


def outcome(rate=100.0, p50=10.0, p99=20.0, mean=11.0, bad=0):
    return Outcome(rate, rate, p50, p99, mean, bad, start=0.0, end=1.0)


# The formula


def test_the_best_cycle_of_few_callers_is_one_batch_of_all_of_them():
    model = Model(0.050, 0.0)
    assert best_rate(8, model, lambda k: 0.002, planned=0.0) == pytest.approx(8 / 0.052)
    assert best_rate(8, model, lambda k: 1.0, planned=0.0) == pytest.approx(4 / 0.050)
    assert best_rate(96, model, lambda k: k / 1e4, planned=0.0) == pytest.approx(64 / 0.0532)
    assert best_rate(512, model, lambda k: 1.0, planned=0.001) == pytest.approx(64 / 0.051)


def test_the_way_back_is_seen_between_batches_of_all_callers():
    held = [Batch(0.0, 1.0, 4), Batch(1.2, 2.2, 4), Batch(2.3, 3.3, 4), Batch(4.3, 5.3, 2)]
    greedy = [Batch(0.0, 1.1, 2), Batch(1.11, 2.21, 2)]
    way = WayBack()
    assert way.best_rate(4, Model(1.0, 0.0)) == 0
    way.saw(4, Model(1.0, 0.0), held, greedy)
    assert way.seconds == {4: pytest.approx(0.15)}
    assert way.best_rate(4, Model(1.0, 0.0)) == pytest.approx(4 / 1.25)


def test_the_way_back_of_others_lies_on_a_line():
    back = line({8: 0.001, 16: 0.002, 32: 0.004})
    assert back(64) == pytest.approx(0.008)
    assert line({8: 0.001})(64) == 0.001


# Loads


def test_a_rate_is_taken_between_batches():
    tally = Tally(start=1.0, end=2.0)
    for number in range(30):
        tally.answer(0.0, 0.09 * number, "x")
    assert tally.answered == 11 and tally.rate == pytest.approx(1 / 0.09)
    assert Tally(start=1.0, end=2.0, answered=5).rate == 5


def test_threads_make_closed_and_open_loops_and_both():
    settings = {"beta": 0.002, "alpha": 0.0, "settings": {"max_latency": 0.0}}
    with calling("ThreadedStreamer", **settings) as called:
        closed = load(called, Spec(callers=3, warm_up=0.05, seconds=SHORT))
        opened = load(called, Spec(rate=400, burst=4, seed=1, warm_up=0.05, seconds=SHORT))
        both = load(called, Spec(rate=400, callers=3, warm_up=0.05, seconds=SHORT))
        none = load(called, Spec(warm_up=0.0, seconds=0.0))
    assert closed.answered > 10 and len(closed.latencies) >= closed.answered - 3
    assert opened.made % 4 == 0 and opened.made > 20
    assert both.made > 20
    assert none.made == 0
    assert not closed.errors and not opened.errors and not both.errors


@pytest.mark.parametrize("door", [THREADS, GEVENT, ASYNCIO])
def test_both_sides_are_asked_in_turns(door):
    with Stage(QUICK) as stage, stage.callers(door) as callers:
        found = callers.measure(Spec(callers=4, warm_up=0.1, seconds=SHORT, items=["x"]), 2)
        assert all(stage.batches(side, found[side]) for side in (HELD, GREEDY))
    assert [len(found[side]) for side in (HELD, GREEDY)] == [2, 2]
    assert all(each.rate > 0 and each.p50 >= 5 and not each.bad for each in found[HELD])


# Rows


def test_rows_hold_one_side_against_the_other():
    found = {HELD: [outcome(rate=150, p50=6)], GREEDY: [outcome()]}
    bounds = {"rate": (MORE, 1.5), "p50": (LESS, 0.5)}
    rate, p50 = returning.compared("x", found, bounds)
    assert rate.holds and rate.unit == "items/s" and rate.told == "p50 6.0 against 10.0 ms"
    assert p50.holds is False and p50.ratio == pytest.approx(0.6)


def test_an_open_loop_may_be_short_of_its_rate_by_chance_alone():
    assert returning.least_made(Spec(callers=8)) == 0
    assert returning.least_made(Spec(rate=10_000, seconds=1.0)) == pytest.approx(8820)
    assert returning.least_made(Spec(rate=400, burst=16, seconds=1.0)) == pytest.approx(216)


def test_errors_are_a_row_that_does_not_hold():
    found = {HELD: [outcome(bad=2)], GREEDY: [outcome()]}
    *_, errors = returning.compared("x", found, {"rate": None})
    assert errors.value == 2 and errors.holds is False


def test_parts_are_chosen_by_name(monkeypatch, capsys):
    ran = []
    for name in ("closed", "think", "open"):
        monkeypatch.setattr(returning.Bench, name, lambda self, name=name: ran.append(name))
    assert command.main(["returning", "--parts", "think,closed"]) == 0
    assert ran == ["think", "closed"]
    assert command.main(["returning", "--parts", "thin"]) == 1
    assert "no part 'thin'; these are closed, think" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["fill", "--parts", "closed"])


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_part_has_its_rows(monkeypatch):
    monkeypatch.setattr(returning, "CLOSED", {returning.SLOW: {4: {"rate": (MORE, 1.0)}}})
    monkeypatch.setattr(returning, "DOORS", (THREADS,))
    monkeypatch.setattr(returning, "ROUNDS", 1)
    report = returning.run(SHORT, ["closed"])
    assert not report.error
    names = [row.name for row in report.rows]
    assert names[0].startswith("50 ms + 20 µs, threads, 4 callers")
    assert [each["side"] for each in report.points] == [HELD, GREEDY]


def test_every_load_is_bounded_as_promised():
    closed = returning.CLOSED
    assert {n: b["rate"] for n, b in closed[returning.FAST].items()} == {
        8: (MORE, 1.5),
        16: (MORE, 1.3),
        32: (MORE, 1.08),
        **dict.fromkeys((64, 96, 128, 512), (MORE, 0.99)),
    }
    assert all(closed[returning.SLOW][n]["p50"] == (LESS, 0.65) for n in (8, 32, 64))
    assert sides.LATENCY == {HELD: 0.1, GREEDY: 0.0}


# mosec at each of its waits


def test_the_gateway_is_held_against_the_best_wait(monkeypatch):
    monkeypatch.setattr(web_others, "python", lambda peer: "python")  # no environment is made
    waits = [web_others.mosec("slow", wait).variables for wait in web_others.MOSEC_WAITS]
    assert [each["WAIT_MS"] for each in waits] == ["1", "2", "5", "10"]
    rates = {"mosec, 1 ms": 500, "mosec, 2 ms": 900, "mosec, 5 ms": 800, "mosec, 10 ms": 100}
    found = {GATEWAY: [Sample(1000)], **{name: [Sample(rate)] for name, rate in rates.items()}}
    assert web_peers.best_wait(found) == "mosec, 2 ms"
    *_, row = web_peers.against_mosec("x", found, (MORE, 1.0))
    assert row.name == "x, gateway, against mosec, 2 ms" and row.ratio == pytest.approx(10 / 9)


# Plots


def test_plots_of_closed_loops_are_drawn(tmp_path):
    found = {HELD: [outcome()], GREEDY: [outcome(50)]}
    points = [
        point
        for model in returning.CLOSED
        for callers in (8, 32)
        for point in returning.points(found, door="HTTP", model=str(model), callers=callers)
    ]
    waits = {GATEWAY: [Sample(1000)], web_peers.MOSEC_BEST: [Sample(900)]}
    peers = web_rounds.points(waits, model="slow", workers=1, connections=8, part="waits")
    text = json.dumps(
        [{"bench": "returning", "points": points}, {"bench": "peers", "points": peers}]
    )
    drawn = returning_plots.points_of(text)
    assert {name: len(each) for name, each in drawn.items()} == {"returning": 8, "waits": 2}
    for name, each in drawn.items():
        path = returning_plots.draw(name, each, tmp_path)
        before = path.read_bytes()
        assert b"callers" in before and b"50 ms" in before
        assert returning_plots.draw(name, each, tmp_path).read_bytes() == before


def test_plots_of_a_file_without_closed_loops_are_refused():
    with pytest.raises(ValueError, match="with its part closed"):
        returning_plots.points_of(json.dumps(Report("returning").plain()))
