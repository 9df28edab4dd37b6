"""`zstreamer bench` without its load: starts, percentiles, the knee, and runs side by side."""

from __future__ import annotations

import statistics
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer.bench import compare, plot, run, starts, sweep
from zstreamer.bench.run import Run
from zstreamer.bench.step import Outcome, Step, percentile, summary
from zstreamer.setting import ConfigError


def test_starts_at_random_have_their_rate_and_are_the_same_each_time():
    found = starts.poisson(1000, 20)
    assert found == starts.poisson(1000, 20) != starts.poisson(1000, 20, seed=2)
    assert found[0] == 0 and found == sorted(found) and found[-1] < 20
    assert 19_000 < len(found) < 21_000
    gaps = [after - before for before, after in pairwise(found)]
    assert statistics.stdev(gaps) == pytest.approx(1e-3, rel=0.1)  # as of independent callers


def test_even_starts_are_equally_far_apart():
    assert starts.even(4, 1) == [0, 0.25, 0.5, 0.75]
    assert starts.even(0.1, 1) == starts.poisson(1e-6, 1) == [0]


@given(some.lists(some.floats(0, 1e6), min_size=1), some.floats(0.1, 100))
def test_so_many_per_cent_do_not_exceed_a_percentile(values, percent):
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert found in ordered
    share = 100 * sum(each <= found for each in ordered) / len(ordered)
    assert share >= percent - 1e-9
    assert 100 * sum(each < found for each in ordered) / len(ordered) < percent + 1e-9


def test_calls_that_a_stall_held_up_count_from_when_they_were_to_begin():
    # One a millisecond; the first is answered after a second, the others, which could only
    # begin then, at once.
    outcomes = [Outcome(0, 0, 1.0)]
    outcomes += [Outcome(n / 1000, 1.0, 1.001) for n in range(1, 1000)]
    step = summary(outcomes, 1.0, rate=1000)
    assert step.p50 == pytest.approx(0.5, abs=0.01)
    assert step.late == pytest.approx(0.99, abs=0.01)


def test_errors_are_counted_by_kind_and_have_no_latency():
    outcomes = [Outcome(0, 0, 0.1), Outcome(0, 0, 5.0, "overloaded"), Outcome(0, 0, 9.0, "x")]
    step = summary([*outcomes, Outcome(0, 0, 5.0, "overloaded")], 2.0, callers=4)
    assert step.errors == {"overloaded": 2, "x": 1} and list(step.errors) == ["overloaded", "x"]
    assert (step.calls, step.answered, step.throughput, step.max) == (4, 1, 0.5, 0.1)
    assert step.name == "4 callers"


def test_nothing_has_figures_too():
    assert summary([], 1.0, rate=5).p99 == percentile([], 50) == 0.0


# The knee


def measured(rate, capacity, seconds=5.0, latency=0.01):
    """What a server of this capacity makes of evenly spaced calls of a rate."""
    outcomes, free = [], 0.0
    for start in starts.even(rate, seconds):
        free = max(free, start) + 1 / capacity
        outcomes.append(Outcome(start, start, free + latency))
    return summary(outcomes, seconds, rate=rate)


@pytest.mark.parametrize("capacity", [3, 70, 1000, 1024])
def test_a_sweep_ends_near_the_capacity(capacity):
    steps = [measured(sweep.first_rate(1 / capacity + 0.01), capacity)]
    while (rate := sweep.next_rate(steps)) is not None:
        assert rate not in [step.rate for step in steps]
        steps.append(measured(rate, capacity))
    knee = sweep.knee(steps)
    assert 0.85 * capacity <= knee.rate <= 1.05 * capacity
    assert len(steps) <= sweep.MOST


def test_a_sweep_that_begins_too_high_goes_down():
    steps = [measured(64, capacity=10)]
    while len(steps) < 20 and (rate := sweep.next_rate(steps, limit=0.5)) is not None:
        steps.append(measured(rate, capacity=10))
    assert 8 <= sweep.knee(steps, limit=0.5).rate <= 11


def test_a_sweep_of_what_never_holds_ends():
    steps = [measured(1, capacity=1000)]
    while (rate := sweep.next_rate(steps, limit=1e-6)) is not None:
        steps.append(measured(rate, capacity=1000))
    assert sweep.knee(steps, limit=1e-6) is None and len(steps) < 5


def test_errors_and_late_answers_keep_a_rate_from_holding():
    good = measured(10, capacity=100)
    assert sweep.holds(good, 1.0)
    assert not sweep.holds(good, 0.001)
    failed = Step(10, 0, 5.0, calls=50, answered=48, throughput=10, errors={"overloaded": 2})
    assert not sweep.holds(failed, 1.0)


def test_a_rate_above_one_that_does_not_hold_is_no_knee():
    steps = [measured(10, 100), measured(20, 15), measured(40, 100)]
    assert sweep.knee(steps).rate == 10


# Runs


def a_run(*rates, capacity=100, **settings):
    return Run("tcp://a:1", "m", 2, steps=[measured(r, capacity) for r in rates], **settings)


def test_a_run_is_read_as_it_was_saved(tmp_path):
    file = tmp_path / "run.json"
    saved = a_run(10, 50, limit=0.5)
    file.write_text(saved.to_json())
    assert run.read(file) == saved


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"form": 99}', '{"form": 1}'])
def test_a_file_that_is_no_run_is_said_to_be_none(tmp_path, text):
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.json"):
        run.read(file)


def test_two_runs_are_compared_where_they_have_a_step_in_common():
    before, after = a_run(10, 50, 90), a_run(20, 50, 90, capacity=80)
    rows = {(row.step, row.name): row for row in compare.rows(before, after)}
    assert {step for step, _ in rows} == {"", "50/s", "90/s"}
    knee = rows["", "knee"]
    assert (knee.before, knee.after, knee.better) == (90, 50, False)
    assert rows["90/s", "p99"].ratio > 5 and rows["90/s", "p99"].better is False
    assert rows["50/s", "throughput"].ratio == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "shown", [a_run(10, 50, 90), a_run(), Run("<&>", "m", 1, steps=[summary([], 1, callers=2)])]
)
def test_a_picture_is_an_image(shown):
    page = ElementTree.fromstring(plot.svg(shown))
    assert page.tag.endswith("svg")
    words = " ".join(page.itertext())
    assert ("knee 90/s" in words) is (shown.knee is not None)
