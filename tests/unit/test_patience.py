"""When a predict counts as hung: late enough for the slow, early enough for the mates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer.batching import BatchTime
from zstreamer.worker.jobs import Job
from zstreamer.worker.patience import MAX_PATIENCE, MIN_PATIENCE, USUAL, Patience

NOW = 100.0


def jobs(*budgets):
    return [Job(i, None, i, NOW + budget, NOW) for i, budget in enumerate(budgets)]


def finish(found, seconds):
    """Its batch has ended after so long."""
    found.answered(seconds)
    found.end()


def patience(*, timeout=None, batches=()):
    """One that has seen batches of (items, seconds)."""
    time = BatchTime()
    found = Patience(timeout, time)
    for items, seconds in batches:
        time.observe(items, seconds)
        found.begin(NOW - seconds, items, jobs(*[20.0] * items))
        finish(found, seconds)
    return found


def limit(found, *budgets, count=None):
    """Seconds that a batch with these budgets may take."""
    found.begin(NOW, count or len(budgets), jobs(*budgets))
    return found.until() - NOW


QUICK = [(8, 0.050), (4, 0.030)]


def test_nothing_that_runs_is_nothing_that_hangs():
    assert patience().until() == math.inf
    found = patience(batches=QUICK)
    limit(found, 20.0)
    finish(found, 0.01)
    assert found.until() == math.inf
    limit(found, 20.0)
    found.gone()
    assert found.until() == math.inf


def test_what_a_person_has_said_is_kept_whatever_the_budgets():
    found = patience(timeout=7.0, batches=[(1, 3.0)])
    assert limit(found, 0.5) == limit(found, *[1000.0] * 8) == 7.0
    found.gone()
    found.prepare(NOW, jobs(0.5))
    assert found.until() - NOW == 7.0


@pytest.mark.parametrize("items", [2, 8, 32, 64])
def test_with_the_default_budget_of_20_s_all_halvings_are_done_in_time(items):
    found = patience(batches=QUICK)
    left, spent = 20.0, 0.0
    while items:  # the half in which the item is that hangs, each time
        seconds = limit(found, *[left] * items)
        spent, left = spent + seconds, left - seconds
        found.gone()
        found.begin(NOW, 1, jobs(left))
        finish(found, 0.03)  # the other half is answered, and shows that the model is alive
        items //= 2
    assert spent < 18


def test_a_batch_has_a_budget_as_short_as_that_of_its_most_urgent_item():
    assert limit(patience(batches=QUICK), 300.0, 20.0, 300.0, 300.0) == pytest.approx(4.0)


def test_long_budgets_do_not_make_a_hang_last_for_ever_nor_short_ones_a_pause_a_hang():
    assert limit(patience(batches=QUICK), 1000.0) == MAX_PATIENCE
    assert limit(patience(batches=QUICK), 0.1) == MIN_PATIENCE
    assert limit(patience(batches=QUICK), count=3) == MAX_PATIENCE  # all were given up


@given(
    batches=some.lists(
        some.tuples(some.integers(1, 64), some.floats(0.001, 60)), min_size=1, max_size=5
    ),
    budgets=some.lists(some.floats(0, 1000), min_size=1, max_size=64),
)
def test_a_model_may_take_10_times_as_long_as_it_usually_does(batches, budgets):
    found = patience(batches=batches)
    usual = found._time(len(budgets))
    assert limit(found, *budgets) >= USUAL * usual - 1e-9
    assert limit(found, *budgets) >= max(seconds for _, seconds in batches)
    assert limit(found, *budgets) >= MIN_PATIENCE


def test_the_first_batch_of_a_model_may_be_slow():
    assert limit(patience(), 20.0) == pytest.approx(10.0)
    assert limit(patience(), *[20.0] * 8) == pytest.approx(20 / 3)


def test_a_model_of_which_nothing_is_known_gets_longer_each_time_until_it_has_run():
    found = patience()
    limits = []
    for _ in range(5):
        limits.append(limit(found, 1.0))
        found.gone()
    assert limits == [2.0, 4.0, 8.0, 16.0, 30.0]


def test_a_model_that_is_killed_again_and_again_may_have_become_slow():
    found = patience(batches=QUICK)
    limits = []
    for _ in range(5):
        limits.append(limit(found, 1.0))
        found.gone()
    assert limits == [2.0, 2.0, 2.0, 4.0, 8.0]
    found.begin(NOW, 1, jobs(1.0))
    finish(found, 0.03)
    assert limit(found, 1.0) == 2.0


def test_what_hangs_is_told():
    found = patience(batches=QUICK)
    limit(found, 20.0)
    found.prepare(NOW + 1, jobs(20.0))
    assert found.words(NOW + 6.7) == "was hung: one predict took 7 s"
    finish(found, 0.03)
    assert found.until() == NOW + 1 + (20.0 - 1) / 2
    assert found.words(found.until()).startswith("was hung: one prepare took")
    found.prepared()
    assert found.until() == math.inf
