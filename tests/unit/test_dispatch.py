"""Which worker gets the next items."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer.broker.dispatch import earliest, finish


@dataclass(eq=False)
class Worker:
    free_at: float = 0.0
    waiting: int = 0
    batch_size: int = 8
    room: int = 16
    used: int = 0
    beta: float = 0.010
    alpha: float = 0.001


def shares(now, workers, items):
    """How many each worker gets, by its place in the list."""
    plan = earliest(now, workers, items)
    assert all(count > 0 for _, count in plan)
    return {workers.index(worker): count for worker, count in plan}


def test_an_item_is_done_after_the_running_batch_the_full_ones_and_its_own():
    worker = Worker(free_at=5.0, waiting=17, beta=0.1, alpha=0.01)
    assert finish(3.0, worker, 1) == pytest.approx(5.0 + 2 * (0.1 + 0.08) + 0.1 + 0.02)
    assert finish(6.0, Worker(waiting=7, beta=0.1, alpha=0.01), 1) == pytest.approx(6.0 + 0.18)


def test_an_item_goes_to_the_worker_that_finishes_it_first():
    slow, fast = Worker(beta=0.100), Worker(beta=0.010)
    assert shares(0.0, [slow, fast], 1) == {1: 1}


def test_a_worker_that_has_just_begun_a_batch_is_not_taken_for_an_idle_one():
    """It holds nothing that waits, but the item would wait for its whole batch."""
    begun = Worker(free_at=1.0, waiting=0)
    nearly_done = Worker(free_at=0.05, waiting=2)
    assert shares(0.0, [begun, nearly_done], 1) == {1: 1}


def test_of_equal_workers_the_least_recently_used_is_taken():
    workers = [Worker(used=9), Worker(used=3), Worker(used=7)]
    assert shares(0.0, workers, 1) == {1: 1}


def test_equal_workers_share_alike():
    workers = [Worker() for _ in range(4)]
    assert shares(0.0, workers, 32) == {0: 8, 1: 8, 2: 8, 3: 8}


def test_a_worker_twice_as_fast_gets_more():
    workers = [Worker(beta=0.001, alpha=0.010), Worker(beta=0.001, alpha=0.020)]
    split = Counter(shares(0.0, workers, 12))
    assert split[0] > split[1] > 0


def test_a_worker_that_has_not_run_yet_is_tried():
    workers = [Worker(free_at=1.0), Worker(beta=0.0, alpha=0.0)]
    assert shares(0.0, workers, 1) == {1: 1}


@given(
    some.lists(
        some.builds(
            Worker,
            free_at=some.floats(0, 10),
            waiting=some.integers(0, 30),
            batch_size=some.integers(1, 16),
            room=some.integers(1, 20),
            used=some.integers(0, 5),
            beta=some.floats(0, 1),
            alpha=some.floats(0, 0.1),
        ),
        min_size=1,
        max_size=6,
    ),
    some.integers(1, 200),
)
def test_nobody_gets_more_than_there_is_room_and_nothing_is_kept_back(workers, items):
    plan = earliest(1.0, workers, items)
    for worker, count in plan:
        assert 0 < count <= worker.room
    assert len({id(worker) for worker, _ in plan}) == len(plan)
    room = sum(worker.room for worker in workers)
    assert sum(count for _, count in plan) == min(items, room)
