"""Which waiting items form the next batch, and when."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer.batching import Batcher, BatchTime, Plan


@dataclass(eq=False)
class Item:
    id: int
    arrived: float = 0.0
    cost: float = 0.0
    deadline: float = math.inf


def time_of(beta, alpha):
    """A batch time that has seen enough batches of many sizes."""
    time = BatchTime()
    for n in [1, 8, 2, 16, 4, 32] * 5:
        time.observe(n, beta + alpha * n)
    return time


def batcher(batch_size=4, max_latency=0.0, max_cost=None, time=None, target=None):
    time = time or BatchTime()
    made: Batcher[Item] = Batcher(batch_size, max_latency, max_cost, time, target)
    return made


def ids(plan):
    return [item.id for item in plan.items]


# How long a batch takes


@given(some.floats(0.001, 1.0), some.floats(0.0001, 0.1), some.lists(some.integers(1, 64)))
def test_batches_of_different_sizes_tell_both_times(beta, alpha, sizes):
    time = BatchTime()
    for n in [1, 32, *sizes, 5]:
        time.observe(n, beta + alpha * n)
    assert time.beta == pytest.approx(beta, rel=0.01, abs=1e-4)
    assert time.alpha == pytest.approx(alpha, rel=0.01, abs=1e-4)


def test_a_slope_is_not_made_up_where_all_batches_are_alike():
    time = BatchTime()
    for _ in range(10):
        time.observe(1, 0.020)
    assert time(64) == pytest.approx(0.020)


@given(some.lists(some.tuples(some.integers(1, 64), some.floats(0.0, 100.0)), min_size=1))
def test_times_are_never_negative(batches):
    time = BatchTime()
    for items, seconds in batches:
        time.observe(items, seconds)
    assert time.alpha >= 0
    assert time.beta >= 0
    assert math.isfinite(time(64))


def test_batches_of_one_size_tell_the_time_of_that_size():
    time = BatchTime()
    for _ in range(10):
        time.observe(8, 0.080)
    assert time(8) == pytest.approx(0.080)


def test_a_slow_first_batch_is_forgotten_though_all_are_of_one_size():
    time = BatchTime()
    time.observe(1, 30.0)
    for _ in range(300):
        time.observe(1, 0.010)
    assert time(1) == pytest.approx(0.010, rel=0.5)


# Greedy


def test_a_free_model_takes_at_once_whatever_waits():
    b = batcher()
    b.add(0.0, [Item(1)])
    assert ids(b.next(0.0, running=0)) == [1]


def test_no_batch_is_larger_than_the_batch_size_and_the_oldest_go_first():
    b = batcher(batch_size=4)
    b.add(0.0, [Item(n) for n in range(6)])
    plan = b.next(0.0, running=0)
    assert ids(plan) == [0, 1, 2, 3]
    b.remove(ids(plan))
    assert ids(b.next(0.0, running=0)) == [4, 5]
    assert len(b) == 2


def test_nothing_waits_for_anything_where_nothing_waits():
    assert batcher().next(0.0, running=0) == Plan(())


def test_what_was_removed_is_not_run():
    b = batcher()
    b.add(0.0, [Item(1), Item(2)])
    b.add_group([Item(3), Item(4)])
    b.remove([1, 3, 4, 99])
    assert ids(b.next(0.0, running=0)) == [2]
    b.clear()
    assert len(b) == 0


# Holding


def cohorts(b, callers, cycles=12, now=100.0, back=0.001, busy=0.050):
    """Greedy batches of two cohorts of callers, who come back in a burst after each answer.

    Returns the moment at which a batch of one cohort has ended while the other waits.
    """
    half = callers // 2
    numbers = itertools.count()
    waiting = [Item(next(numbers), now) for _ in range(half)]
    b.add(now, waiting)
    for _ in range(cycles):
        b.remove(item.id for item in waiting)
        waiting = []
        for _ in range(half):
            came = now + back
            waiting.append(Item(next(numbers), came))
            b.add(came, waiting[-1:])
        now += busy
        b.ended(now, half)
    return now


def slow(**settings):
    return batcher(batch_size=64, max_latency=0.1, time=time_of(0.050, 0.00002), **settings)


def test_two_cohorts_are_made_one():
    b = slow()
    now = cohorts(b, callers=16)
    plan = b.next(now, running=0)
    assert ids(plan) == []
    assert now < plan.hold_until < now + 0.005
    b.add(now + 0.001, [Item(1000 + n, now + 0.001) for n in range(8)])
    assert len(b.next(now + 0.001, running=0).items) == 16  # at once, and all of them


def test_a_hold_ends_where_those_who_were_expected_do_not_come():
    b = slow()
    now = cohorts(b, callers=16)
    until = b.next(now, running=0).hold_until
    assert len(b.next(until, running=0).items) == 8


def test_while_the_model_runs_no_plan_lies_ready_for_what_is_to_be_held():
    b = slow()
    cohorts(b, callers=16)
    assert b.next(100.7, running=8) == Plan(())


def test_without_max_latency_nothing_is_held():
    b = batcher(batch_size=64, max_latency=0.0, time=time_of(0.050, 0.00002))
    now = cohorts(b, callers=16)
    assert len(b.next(now, running=0).items) == 8


@pytest.mark.parametrize("most", [0.0005, 0.001])
def test_no_hold_is_longer_than_max_latency(most):
    b = batcher(batch_size=64, max_latency=most, time=time_of(0.050, 0.00002))
    now = cohorts(b, callers=16)
    assert b.next(now, running=0).hold_until == pytest.approx(now + most)


def test_no_hold_takes_an_item_past_its_budget():
    b = slow()
    now = cohorts(b, callers=16)
    b.add(now, [Item(1000, now, deadline=now + 0.0505)])
    assert b.next(now, running=0).hold_until <= now + 0.0505 - 0.0503
    b.add(now, [Item(1001, now, deadline=now + 0.050)])
    assert len(b.next(now, running=0).items) == 10


def test_callers_who_take_longer_than_a_batch_to_return_are_not_waited_for():
    b = slow()
    now = cohorts(b, callers=16, back=0.055, busy=0.056)
    assert len(b.next(now, running=0).items) == 8


def test_a_model_whose_time_is_per_item_is_never_held():
    b = batcher(batch_size=64, max_latency=0.1, time=time_of(beta=0.0005, alpha=0.010))
    now = cohorts(b, callers=16, busy=0.0805)
    assert len(b.next(now, running=0).items) == 8


@given(beta=some.floats(0.001, 1.0), alpha=some.floats(0.0, 0.1), think=some.floats(0.0, 1.0))
def test_a_lone_caller_never_pays_for_a_hold(beta, alpha, think):
    """It asks again only after its answer, so no company can come."""
    b = batcher(batch_size=8, max_latency=0.5, time=time_of(beta, alpha))
    now = 100.0
    for n in range(40):
        b.add(now, [Item(n, now)])
        assert ids(b.next(now, running=0)) == [n]
        b.remove([n])
        now += beta + alpha
        b.ended(now, 1)
        now += think


@given(some.integers(0, 2**32))
def test_arrivals_at_any_time_are_hardly_ever_held(seed):
    """Poisson arrivals: what is held must stay the exception, whatever the load."""
    chance = random.Random(seed)
    b = slow()
    rate = chance.choice([5, 20, 100, 400, 900])
    held, batches, now, next_arrival, number = 0, 0, 0.0, 0.0, itertools.count()
    while batches < 200:
        while next_arrival <= now:
            b.add(next_arrival, [Item(next(number), next_arrival)])
            next_arrival += chance.expovariate(rate)
        plan = b.next(now, running=0)
        if plan.items:
            b.remove(ids(plan))
            end = now + 0.050 + 0.00002 * len(plan.items)
            while next_arrival <= end:
                b.add(next_arrival, [Item(next(number), next_arrival)])
                next_arrival += chance.expovariate(rate)
            now = end
            b.ended(now, len(plan.items))
            batches += 1
        else:
            held += plan.hold_until is not None
            now = min(next_arrival, plan.hold_until or math.inf)
    assert held < 0.1 * batches


# Groups


def test_a_group_runs_alone_and_first():
    b = batcher()
    b.add(0.0, [Item(1), Item(2)])
    b.add_group([Item(3)])
    b.add_group([Item(4), Item(5)])
    assert len(b) == 5
    for expected, alone in ([3], True), ([4, 5], True), ([1, 2], False):
        plan = b.next(0.0, running=0)
        assert (ids(plan), plan.alone) == (expected, alone)
        b.remove(ids(plan))


# A latency target


@pytest.mark.parametrize(("target", "most"), [(0.1, 40), (0.03, 5), (0.001, 1), (None, 64)])
def test_two_batches_fit_into_a_latency_target(target, most):
    b = batcher(batch_size=64, time=time_of(0.010, 0.001), target=target)
    b.add(0.0, [Item(n) for n in range(100)])
    assert len(b.next(0.0, running=0).items) == pytest.approx(most, abs=1 if target else 0)


def test_a_latency_target_limits_nothing_before_the_batch_time_is_known():
    b = batcher(batch_size=64, target=0.001)
    b.add(0.0, [Item(n) for n in range(100)])
    assert len(b.next(0.0, running=0).items) == 64


# Costs


def test_items_of_like_cost_run_together():
    b = batcher(batch_size=3)
    costs = [10, 500, 11, 480, 12, 490]
    b.add(0.0, [Item(n, cost=cost) for n, cost in enumerate(costs)])
    first = b.next(0.0, running=0)
    assert sorted(ids(first)) == [0, 2, 4]
    b.remove(ids(first))
    assert sorted(ids(b.next(0.0, running=0))) == [1, 3, 5]


def test_the_nearest_costs_are_taken_from_both_sides():
    b = batcher(batch_size=3)
    b.add(0.0, [Item(n, cost=cost) for n, cost in enumerate([10, 4, 5, 11, 40])])
    assert sorted(ids(b.next(0.0, running=0))) == [0, 2, 3]
    b = batcher(batch_size=3)
    b.add(0.0, [Item(n, cost=cost) for n, cost in enumerate([10, 4, 5, 40, 41])])
    assert sorted(ids(b.next(0.0, running=0))) == [0, 1, 2]


@given(
    some.lists(some.floats(0.5, 1000.0), min_size=1, max_size=40),
    some.integers(1, 8),
    some.floats(1.0, 3000.0),
)
def test_no_batch_costs_more_than_it_may_and_the_oldest_is_always_in_it(costs, size, most):
    b = batcher(batch_size=size, max_cost=most)
    b.add(0.0, [Item(n, cost=cost) for n, cost in enumerate(costs)])
    left = set(range(len(costs)))
    while left:
        plan = b.next(0.0, running=0)
        assert min(left) in ids(plan)
        assert len(plan.items) <= size
        dearest = max(item.cost for item in plan.items)
        assert dearest * len(plan.items) <= most or len(plan.items) == 1
        b.remove(ids(plan))
        left -= set(ids(plan))
    assert len(b) == 0


@given(some.lists(some.integers(1, 1000), min_size=1, max_size=30))
def test_a_dear_item_among_ever_new_cheap_ones_is_run_when_it_is_the_oldest(arrivals):
    b = batcher(batch_size=2)
    b.add(0.0, [Item(0, cost=10_000)])
    for n, cost in enumerate(arrivals, 1):
        b.add(float(n), [Item(n, cost=cost)])
    assert 0 in ids(b.next(100.0, running=0))
