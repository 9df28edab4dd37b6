"""What holding is worth, in virtual time: the same seed always gives the same figures."""

import math
import time

import pytest

from tests.bench.virtual import Cluster, Load, Way, changing, formula, measure
from tests.bench.virtual_callers import FAST, GREEDY, HELD, KINDS, PER_ITEM, SLOW, changes, line

SEEDS = (1, 2)

QUICK = Way(first=0.0005, each=0.00006)
"""With a shorter way back than usual."""


def both(load, model, seed, **settings):
    """The figures of a load, held and greedy."""
    return [measure(load, model, most, seed=seed, **settings) for most in (HELD, GREEDY)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("callers", "rate", "p50"), [(8, 1.7, 0.65), (32, 1.7, 0.65), (64, 1.7, 0.65), (96, 1.2, 1.1)]
)
def test_callers_of_a_slow_model_are_answered_in_one_batch(callers, rate, p50, seed):
    held, greedy = both(Load(callers), SLOW, seed, seconds=4)
    assert held.rate >= rate * greedy.rate
    assert held.p50 <= p50 * greedy.p50
    assert held.rate >= 0.9 * formula(callers, SLOW)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("callers", "rate"), [(8, 1.5), (16, 1.3), (32, 1.08), (64, 0.99)])
def test_callers_of_a_fast_model_are_where_they_return_quickly(callers, rate, seed):
    held, greedy = both(Load(callers), FAST, seed, seconds=2, way=QUICK)
    assert held.rate >= rate * greedy.rate


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("callers", [8, 32, 64, 96])
def test_no_callers_of_a_fast_model_are_worse_off(callers, seed):
    held, greedy = both(Load(callers), FAST, seed, seconds=1)
    assert held.rate >= 0.99 * greedy.rate
    assert held.rate >= 0.9 * formula(callers, FAST)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("model", [SLOW, FAST], ids=str)
def test_a_lone_caller_sees_no_difference(model, seed):
    held, greedy = both(Load(1), model, seed, seconds=5)
    assert held == greedy


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spread", [False, True], ids=["constant", "exponential"])
@pytest.mark.parametrize("think", [0.001, 0.005, 0.020])
@pytest.mark.parametrize("model", [SLOW, FAST], ids=str)
def test_callers_who_think_are_never_worse_off(model, think, spread, seed):
    held, greedy = both(Load(8, think, spread), model, seed, seconds=10 if model is SLOW else 3)
    assert held.rate >= 0.98 * greedy.rate
    assert held.mean <= 1.05 * greedy.mean


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.05, 0.25, 0.75])
@pytest.mark.parametrize(("model", "seconds"), [(SLOW, 30), (FAST, 2)], ids=["slow", "fast"])
def test_arrivals_at_any_time_wait_no_longer(model, seconds, share, seed):
    load = Load(rate=share * model.capacity)
    held, greedy = both(load, model, seed, seconds=seconds)
    assert held.mean <= 1.03 * greedy.mean
    assert held.p99 <= 1.03 * greedy.p99


SLOWER = Way(first=0.0015, each=0.00012, jitter=0.5, bundle=3)
"""A way back that workers cannot learn by themselves: many who return are given to another."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize(("callers", "rate"), [(8, 1.25), (32, 1.25), (64, 1.25), (256, 0.98)])
def test_callers_of_several_workers_are_gathered(callers, rate, workers, seed):
    load = {"workers": workers, "seconds": 3, "way": SLOWER}
    held, greedy = both(Load(callers), SLOW, seed, **load)
    assert held.rate >= rate * greedy.rate


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_arrivals_at_any_time_at_several_workers_wait_no_longer(share, workers):
    load = Load(rate=share * workers * SLOW.capacity)
    held, greedy = both(load, SLOW, 1, workers=workers, seconds=5)
    assert held.mean <= 1.03 * greedy.mean
    assert held.p99 <= 1.03 * greedy.p99


@pytest.mark.parametrize("callers", [2, 8, 32])
def test_where_time_is_per_item_nothing_is_lost(callers):
    held, greedy = both(Load(callers), PER_ITEM, seed=1, seconds=2)
    assert held.rate >= 0.98 * greedy.rate


@pytest.mark.parametrize("seed", SEEDS)
def test_a_load_that_changes_its_kind_has_the_new_ones_figures_within_a_second(seed):
    loads = changes(SLOW)
    held, greedy = (changing(loads, SLOW, most, seed=seed) for most in (HELD, GREEDY))
    for load, ours, theirs in zip(loads, held, greedy, strict=True):
        rate, before = (sum(second.rate for second in side[1:]) for side in (ours, theirs))
        if load.rate:
            assert ours[2].mean <= 1.05 * theirs[2].mean, load
        elif load.think:
            assert rate >= 1.2 * before, load
        else:
            assert rate >= (1.15 if load.callers > 64 else 1.65) * before, load


def test_the_same_seed_gives_the_same_figures():
    load = Load(8, 0.005, spread=True, rate=100)
    assert measure(load, FAST, HELD, seconds=1, seed=7) == measure(
        load, FAST, HELD, seconds=1, seed=7
    )
    assert measure(load, FAST, HELD, seconds=1, seed=7) != measure(
        load, FAST, HELD, seconds=1, seed=8
    )


def test_an_hour_of_a_load_that_sends_nothing_takes_no_time():
    start = time.process_time()
    cluster = Cluster(SLOW, HELD)
    cluster.begin(Load())
    cluster.run(3600)
    assert cluster.now == 3600
    assert time.process_time() - start < 1
    assert cluster.figures(0, math.inf).rate == 0


def test_the_table_has_a_line_for_each_case():
    cases = [case for kind in KINDS.values() for case in kind()]
    assert len({str(case) for case in cases}) == len(cases)
    text = line(cases[4]._replace(seconds=1.0))
    assert text.startswith("50 ms + 20 µs: closed 8 ") and "rate ×" in text
