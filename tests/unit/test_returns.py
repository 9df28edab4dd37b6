"""What is learned of callers who return, and what a hold asks for."""

import math
import random
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from zstreamer.returns import (
    CYCLES,
    LEAST_CYCLES,
    LEAST_ODDS,
    MOST_ODDS,
    ODDS,
    STEPS,
    Returns,
    _Cycle,
)

BETA, ALPHA = 0.050, 0.00002
MOST = 64

seconds = some.floats(0.0, 2.0)


class Loop:
    """Callers of one model, as `Returns` sees them: batches that end, and items that come."""

    def __init__(self, beta=BETA, alpha=ALPHA):
        self.returns = Returns()
        self.now = 100.0
        self.beta = beta
        self.alpha = alpha

    def batch(self, items, back=(), pause=0.0):
        """A batch ends; some of its callers come back so many seconds later, then the next runs."""
        self.returns.answered(self.now, items, self.beta)
        for offset in back:
            self.returns.came(self.now + offset, 1)
        self.now += max(back, default=0.0) + pause + self.beta + self.alpha * items

    def bursts(self, items, batches=8, first=0.001, each=0.0001):
        for _ in range(batches):
            self.batch(items, [first + each * n for n in range(items)])

    def hold(self, waiting, running=0, most=MOST):
        return self.returns.hold(waiting, running, most, self.beta, self.alpha)

    def hold_after_batch(self, items, waiting):
        """Whether anything is held for where so many were answered just now."""
        self.returns.answered(self.now, items, self.beta)
        return self.hold(waiting)


# The curve of one cycle


@settings(deadline=None)
@given(some.integers(1, 200), some.lists(some.tuples(seconds, some.integers(1, 20))), seconds)
def test_a_curve_says_when_each_share_was_back(answered, arrivals, limit):
    offsets = sorted(offset for offset, _ in arrivals)
    counts = list(accumulate(items for _, items in arrivals))
    curve = _Cycle(answered, offsets, counts).curve(limit)
    assert len(curve) == STEPS and curve == sorted(curve)
    for step, time in enumerate(curve, 1):
        enough = [by_then * STEPS >= step * answered for by_then in counts]
        back = [at for at, is_enough in zip(offsets, enough, strict=True) if is_enough]
        assert time == (back[0] if back and back[0] <= limit else math.inf)


def test_a_curve_of_nobody_who_came_back_is_infinite():
    assert _Cycle(8, [], []).curve(1.0) == [math.inf] * STEPS


def test_items_that_come_together_are_back_at_once():
    curve = _Cycle(16, [0.25, 0.5], [8, 16]).curve(1.0)
    assert curve == [0.25] * (STEPS // 2) + [0.5] * (STEPS // 2)


# What a hold asks for


events = some.lists(
    some.tuples(
        some.integers(1, 80), some.lists(some.tuples(seconds, some.integers(1, 8)), max_size=12)
    ),
    max_size=20,
)


@settings(deadline=None)
@given(
    events=events,
    waiting=some.integers(1, 100),
    running=some.integers(0, 80),
    most=some.integers(1, 80),
    beta=some.floats(1e-4, 1.0),
    alpha=some.floats(0.0, 0.1),
    sure=some.booleans(),
)
def test_a_hold_never_asks_for_more_than_fit_nor_than_there_are(
    events, waiting, running, most, beta, alpha, sure
):
    returns, now, answered = Returns(), 0.0, 0
    for answered, arrivals in events:
        returns.answered(now, answered, beta)
        for gap, items in arrivals:
            now += gap
            returns.came(now, items)
        now += beta
    if sure:
        returns._odds = MOST_ODDS
    hold = returns.hold(waiting, running, most, beta, alpha)
    if hold is not None:
        assert waiting < hold.items <= min(most, waiting + (running or answered))
        assert 0 <= hold.until < math.inf


@pytest.mark.parametrize("callers", [2, 8, 33, 64])
def test_all_callers_are_waited_for_where_the_way_back_is_short(callers):
    loop = Loop()
    loop.bursts(callers // 2)
    hold = loop.hold_after_batch(callers // 2, callers - callers // 2)
    assert hold.items == pytest.approx(callers, abs=1)
    assert 0.001 <= hold.until < 0.02


def test_no_more_are_waited_for_than_a_batch_has():
    loop = Loop()
    loop.bursts(48)
    assert loop.hold_after_batch(48, waiting=48).items == MOST
    assert loop.hold_after_batch(48, waiting=MOST) is None


def test_those_who_are_back_already_are_not_waited_for():
    loop = Loop()
    loop.bursts(8)
    loop.returns.answered(loop.now, 8, BETA)
    loop.returns.came(loop.now + 0.001, 8)
    assert loop.hold(waiting=16) is None


def test_while_a_batch_runs_the_hold_is_for_those_whom_it_will_answer():
    loop = Loop()
    loop.bursts(8)
    loop.returns.came(loop.now, 8)
    assert loop.hold(waiting=8, running=8).items == 16


def test_a_way_back_as_long_as_a_batch_is_not_waited_for():
    loop = Loop()
    loop.bursts(8, first=0.98 * BETA)
    assert loop.hold_after_batch(8, waiting=8) is None


def test_where_time_is_per_item_nothing_is_held():
    loop = Loop(beta=0.0005, alpha=0.010)
    loop.bursts(8, first=0.0001, each=0.00001)
    assert loop.hold_after_batch(8, waiting=8) is None


@settings(deadline=None)
@given(some.lists(seconds, min_size=12, max_size=30), some.floats(0.001, 1.0))
def test_a_lone_caller_is_never_waited_for(thinks, beta):
    loop = Loop(beta=beta)
    for think in thinks:
        loop.batch(1, [think])
        assert loop.hold(waiting=1) is None
        assert loop.hold(waiting=1, running=0, most=1) is None


# Idle


def test_nothing_is_known_at_first():
    returns = Returns()
    assert returns.hold(1, 0, MOST, BETA, ALPHA) is None
    assert returns.hold(1, 4, MOST, BETA, ALPHA) is None
    assert not returns.bursts and returns.ended == -math.inf


@settings(deadline=None)
@given(some.floats(0.0, 1e6))
def test_callers_who_were_away_once_are_waited_for_again(pause):
    loop = Loop()
    loop.bursts(8)
    loop.batch(8, [pause + 0.0001 * n for n in range(8)])
    loop.bursts(8, batches=10)
    assert loop.hold_after_batch(8, waiting=8).items == 16


@settings(deadline=None)
@given(some.floats(1.0, 1e6))
def test_nobody_is_waited_for_longer_than_a_return_takes_after_a_pause(pause):
    loop = Loop()
    loop.bursts(8)
    loop.batch(8, pause=pause)
    loop.bursts(8, batches=2)
    hold = loop.hold_after_batch(8, waiting=8)
    assert hold is None or hold.until < 0.01


def test_a_batch_to_which_nobody_returns_is_one_miss_among_many():
    loop = Loop()
    loop.bursts(8, batches=CYCLES)
    loop.batch(8)
    assert loop.hold_after_batch(8, waiting=8).items == 16


# The odds


def test_bursts_are_known_for_what_they_are_within_few_batches():
    loop = Loop()
    loop.bursts(8, batches=6)
    assert loop.returns.bursts


def test_arrivals_at_any_time_are_known_for_what_they_are_within_few_batches():
    loop, chance = Loop(), random.Random(1)
    loop.bursts(8, batches=20)
    for _ in range(4):
        loop.batch(8, sorted(chance.uniform(0, 0.1) for _ in range(8)))
    assert not loop.returns.bursts


@settings(deadline=None)
@given(some.lists(some.lists(some.floats(0.0, 0.2), max_size=20), max_size=30))
def test_the_odds_stay_where_a_change_of_load_can_turn_them(batches):
    loop = Loop()
    for offsets in batches:
        loop.batch(8, sorted(offsets))
        assert LEAST_ODDS <= loop.returns._odds <= MOST_ODDS
    loop.bursts(8, batches=CYCLES + 6)
    assert loop.returns.bursts


def test_a_load_that_tells_nothing_leaves_no_trust_for_ever():
    """Where returns take most of a cycle, they look like arrivals at any time."""
    loop = Loop()
    loop.bursts(8, batches=20)
    assert loop.returns._odds == MOST_ODDS
    for _ in range(40):
        loop.returns.answered(loop.now, 8, BETA)
        for n in range(8):
            loop.returns.came(loop.now + 0.001 + 0.0001 * n, 1)
        loop.now += 0.002  # the model ended again at once
    assert loop.returns._odds < ODDS


def test_nothing_is_held_before_some_cycles_have_been_seen():
    loop = Loop()
    loop.bursts(32, LEAST_CYCLES)
    assert loop.hold_after_batch(32, waiting=1) is None
    loop = Loop()
    loop.bursts(32, LEAST_CYCLES + 1)
    assert loop.hold_after_batch(32, waiting=1) is not None
