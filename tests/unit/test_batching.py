"""Which waiting items form the next batch, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer.batching import PATIENCE, Batcher, BatchTime, Plan


@dataclass(eq=False)
class Item:
    id: int
    arrived: float = 0.0
    cost: float = 0.0


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
    assert ids(b.next(0.0, busy=False)) == [1]


def test_no_batch_is_larger_than_the_batch_size_and_the_oldest_go_first():
    b = batcher(batch_size=4)
    b.add(0.0, [Item(n) for n in range(6)])
    plan = b.next(0.0, busy=False)
    assert ids(plan) == [0, 1, 2, 3]
    b.remove(ids(plan))
    assert ids(b.next(0.0, busy=False)) == [4, 5]
    assert len(b) == 2


def test_nothing_waits_for_anything_where_nothing_waits():
    assert batcher().next(0.0, busy=False) == Plan(())


def test_what_was_removed_is_not_run():
    b = batcher()
    b.add(0.0, [Item(1), Item(2)])
    b.add_group([Item(3), Item(4)])
    b.remove([1, 3, 4, 99])
    assert ids(b.next(0.0, busy=False)) == [2]
    b.clear()
    assert len(b) == 0


# Holding


def steady(b, gap, count, start=100.0):
    """Items that arrive one by one, each taken at once; return the next moment."""
    now = start
    for n in range(count):
        b.add(now, [Item(n, now)])
        b.remove([n])
        now += gap
    return now


def test_a_hold_that_is_expected_to_pay_waits_for_the_next_arrival():
    b = batcher(batch_size=8, max_latency=0.1, time=time_of(beta=0.1, alpha=0.0001))
    now = steady(b, gap=0.001, count=50)
    b.add(now, [Item(100, now)])
    plan = b.next(now, busy=False)
    assert ids(plan) == []
    assert plan.hold_until is not None
    assert now < plan.hold_until <= now + PATIENCE * 0.0011


def test_bursts_of_callers_who_come_back_together_are_waited_for():
    """Twelve callers return within 3 ms of each batch of 20 ms; the mean gap is past what pays."""
    b = batcher(batch_size=16, max_latency=0.1, time=time_of(0.020, 0.0001))
    now = 0.0
    for n in range(120):
        now += 0.020 if n % 12 == 0 else 0.00025
        b.add(now, [Item(n, arrived=now)])
        if n % 12 == 11:
            b.remove(range(n - 11, n + 1))
    for n in range(200, 204):
        now += 0.00025
        b.add(now, [Item(n, arrived=now)])
    assert b.next(now, busy=False).items == ()


def test_a_hold_ends_when_the_batch_is_full_or_the_next_does_not_come():
    b = batcher(batch_size=2, max_latency=0.1, time=time_of(beta=0.1, alpha=0.0001))
    now = steady(b, gap=0.001, count=50)
    b.add(now, [Item(100, now)])
    until = b.next(now, busy=False).hold_until
    assert until is not None
    assert ids(b.next(until, busy=False)) == [100]
    b.add(now, [Item(101, now)])
    assert ids(b.next(now, busy=False)) == [100, 101]


def test_no_hold_is_longer_than_max_latency():
    b = batcher(batch_size=64, max_latency=0.010, time=time_of(beta=10.0, alpha=0.0))
    now = start = steady(b, gap=0.009, count=50)
    for n in range(100, 164):
        b.add(now, [Item(n, now)])
        plan = b.next(now, busy=False)
        if plan.items:
            break
        now += 0.009
    assert now - start <= 0.010 + 0.009
    assert plan.items


def test_a_model_whose_time_is_per_item_is_never_held():
    b = batcher(batch_size=8, max_latency=0.1, time=time_of(beta=0.0005, alpha=0.010))
    now = steady(b, gap=0.005, count=50)
    b.add(now, [Item(100, now)])
    assert ids(b.next(now, busy=False)) == [100]


@given(beta=some.floats(0.001, 1.0), alpha=some.floats(0.0, 0.1), think=some.floats(0.0, 1.0))
def test_a_lone_caller_never_pays_for_a_hold(beta, alpha, think):
    """It asks again only after its answer, so no company can come."""
    b = batcher(batch_size=8, max_latency=0.5, time=time_of(beta, alpha))
    now = 100.0
    for n in range(20):
        b.add(now, [Item(n, now)])
        assert ids(b.next(now, busy=False)) == [n]
        b.remove([n])
        now += beta + alpha + think


def test_without_max_latency_nothing_is_held():
    b = batcher(batch_size=8, max_latency=0.0, time=time_of(beta=1.0, alpha=0.0))
    now = steady(b, gap=0.0001, count=50)
    b.add(now, [Item(100, now)])
    assert ids(b.next(now, busy=False)) == [100]


def test_a_plan_for_a_busy_model_is_not_held():
    b = batcher(batch_size=8, max_latency=0.1, time=time_of(beta=0.1, alpha=0.0))
    now = steady(b, gap=0.001, count=50)
    b.add(now, [Item(100, now)])
    assert ids(b.next(now, busy=True)) == [100]


# Groups


def test_a_group_runs_alone_and_first():
    b = batcher()
    b.add(0.0, [Item(1), Item(2)])
    b.add_group([Item(3)])
    b.add_group([Item(4), Item(5)])
    assert len(b) == 5
    for expected, alone in ([3], True), ([4, 5], True), ([1, 2], False):
        plan = b.next(0.0, busy=False)
        assert (ids(plan), plan.alone) == (expected, alone)
        b.remove(ids(plan))


# A latency target


@pytest.mark.parametrize(("target", "most"), [(0.1, 40), (0.03, 5), (0.001, 1), (None, 64)])
def test_two_batches_fit_into_a_latency_target(target, most):
    b = batcher(batch_size=64, time=time_of(0.010, 0.001), target=target)
    b.add(0.0, [Item(n) for n in range(100)])
    assert len(b.next(0.0, busy=False).items) == pytest.approx(most, abs=1 if target else 0)


def test_a_latency_target_limits_nothing_before_the_batch_time_is_known():
    b = batcher(batch_size=64, target=0.001)
    b.add(0.0, [Item(n) for n in range(100)])
    assert len(b.next(0.0, busy=False).items) == 64


# Costs


def test_items_of_like_cost_run_together():
    b = batcher(batch_size=3)
    costs = [10, 500, 11, 480, 12, 490]
    b.add(0.0, [Item(n, cost=cost) for n, cost in enumerate(costs)])
    first = b.next(0.0, busy=False)
    assert sorted(ids(first)) == [0, 2, 4]
    b.remove(ids(first))
    assert sorted(ids(b.next(0.0, busy=False))) == [1, 3, 5]


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
        plan = b.next(0.0, busy=False)
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
    assert 0 in ids(b.next(100.0, busy=False))
