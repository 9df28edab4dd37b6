"""Workers of one model gather the callers who return to any of them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.helpers.wire import Cluster
from zstreamer.broker.gathering import Gathering, Share
from zstreamer.returns import MOST_ARRIVALS
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Flag

BETA = 0.050
BACK = 0.002
"""Seconds in which callers return."""


@dataclass(eq=False)
class Worker:
    assigned: int = 0
    running: list[object] = field(default_factory=list)
    gathers: bool = False
    goes: bool = False
    max_latency: float = 0.1
    free_at: float = 0.0
    used: int = 0
    batch_size: int = 64
    beta: float = BETA
    alpha: float = 0.00002
    room: int = 128

    @property
    def waiting(self):
        return self.assigned


def knowing(callers=16, workers=2):
    """One that has seen the callers of a model return, and the time: a batch has just ended."""
    gathering, now = Gathering(), 100.0
    for _ in range(20):
        gathering.ended(now, callers // workers, BETA)
        gathering.came(now + BACK / 2, callers // workers // 2)
        gathering.came(now + BACK, callers // workers // 2)
        now += BETA / workers
    gathering.ended(now, callers // workers, BETA)
    return gathering, now


def given(shares):
    return [(share.items, share.more) for share in shares or ()]


def test_a_free_worker_waits_for_its_share_of_all_callers():
    gathering, now = knowing()
    free, busy = Worker(), Worker(running=[1] * 8)
    gathering.came(now + 0.001, 3)
    assert gathering.shares(now + 0.001, 3, 8, [free, busy]) == [Share(free, 3, more=True)]
    assert now + BACK <= gathering.look_at < now + BETA
    free.assigned, free.gathers = 3, True
    gathering.came(now + BACK, 5)
    assert gathering.shares(now + BACK, 5, 11, [free, busy]) == [Share(free, 5, more=False)]
    assert gathering.look_at > now + 100


def test_one_whose_callers_do_not_come_begins_with_what_it_has():
    gathering, now = knowing()
    free, busy = Worker(assigned=3, gathers=True), Worker(running=[1] * 8)
    gathering.came(now + 0.001, 3)
    assert given(gathering.shares(now + 0.001, 0, 11, [free, busy])) == []
    late = gathering.look_at
    assert gathering.shares(late, 0, 11, [free, busy]) == [Share(free, 0, more=False)]


def test_two_free_workers_are_filled_one_after_the_other():
    gathering, now = knowing()
    one, other = Worker(used=2), Worker(used=1)
    gathering.came(now + 0.001, 8)
    found = gathering.shares(now + 0.001, 8, 0, [one, other])
    assert found
    assert sum(share.items for share in found) == 8
    assert found[0].worker is other


def test_what_comes_while_all_run_waits_for_more_at_the_one_that_ends_first():
    gathering, now = knowing()
    soon = Worker(running=[1] * 8, free_at=now + 0.01)
    later = Worker(running=[1] * 8, free_at=now + 0.04)
    assert gathering.shares(now, 2, 16, [soon, later]) == [Share(soon, 2, more=True)]


def test_a_worker_that_was_told_to_begin_is_not_free_until_it_says_that_it_has():
    gathering, now = knowing()
    began, busy = Worker(assigned=8, goes=True, free_at=now), Worker(running=[1] * 8)
    shares = gathering.shares(now, 2, 16, [began, busy])
    assert shares
    assert all(share.more for share in shares)


def test_what_no_share_has_room_for_begins_with_the_others():
    gathering, now = knowing()
    workers = [Worker(), Worker()]
    gathering.came(now + 0.001, 17)
    shares = gathering.shares(now + 0.001, 17, 0, workers)
    assert shares
    assert sum(share.items for share in shares) == 17
    assert not any(share.more for share in shares)


def test_one_that_was_told_to_begin_with_what_is_gone_since_is_free():
    gathering, now = knowing()
    idle, busy = Worker(goes=True), Worker(running=[1] * 8)
    gathering.came(now + BACK, 8)
    assert gathering.shares(now + BACK, 8, 8, [idle, busy]) == [Share(idle, 8, more=False)]


@pytest.mark.parametrize(
    "workers",
    [[Worker()], [Worker(), Worker(max_latency=0.0)]],
    ids=["one worker", "one that never holds"],
)
def test_nobody_gathers_where_it_is_of_no_use_or_not_wanted(workers):
    gathering, now = knowing()
    assert gathering.shares(now, 8, 0, workers) is None


def test_nobody_gathers_for_arrivals_at_any_time():
    gathering, now = Gathering(), 100.0
    for _ in range(50):
        gathering.ended(now, 8, BETA)
        for step in range(1, 8):
            gathering.came(now + step * BETA / 16, 1)
        now += BETA / 2
    assert gathering.shares(now, 8, 0, [Worker(), Worker()]) is None


def test_nobody_gathers_where_all_batches_are_full_anyway():
    gathering, now = knowing(callers=256)
    assert gathering.shares(now, 64, 128, [Worker(), Worker(running=[1] * 64)]) is None


@pytest.mark.parametrize("slow_first", [False, True])
def test_workers_of_different_speed_are_given_what_they_finish_earliest(slow_first):
    gathering, now = knowing()
    gathering.came(now + 0.001, 16)
    workers = [Worker(), Worker(beta=10 * BETA)]
    assert gathering.shares(now + 0.001, 16, 0, workers[:: -1 if slow_first else 1]) is None


def test_one_that_is_idle_with_items_that_no_word_came_with_is_told_to_begin():
    gathering, now = knowing()
    idle, busy = Worker(assigned=1), Worker(running=[1] * 8)
    gathering.came(now + 0.001, 2)
    assert given(gathering.shares(now + 0.001, 2, 9, [idle, busy])) == [(2, True)]
    assert gathering.look_at < math.inf
    idle.assigned = 3
    assert given(gathering.shares(gathering.look_at, 0, 11, [idle, busy])) == [(0, False)]


def test_one_whose_batch_was_cancelled_is_free_although_it_was_told_to_begin():
    gathering, now = knowing()
    free, busy = Worker(goes=True), Worker(running=[1] * 8)
    assert gathering.shares(now + 1, 1, 8, [free, busy]) == [Share(free, 1, more=False)]


def test_arrivals_that_nobody_answers_do_not_fill_the_memory():
    gathering, now = knowing()
    for _ in range(10_000):
        gathering.came(now, 1)
    assert len(gathering.returns._cycle.offsets) <= MOST_ARRIVALS
    assert not gathering.returns.awaited


# With the cores


def closed_loop(callers, workers, max_latency, seconds=3.0, predict=list):
    """Return the cluster and its workers after so many virtual seconds."""
    cluster = Cluster()
    cluster.broker()
    settings = {"beta": BETA, "alpha": 0.00002, "batch_size": 64, "max_latency": max_latency}
    made = [cluster.worker(predict=predict, **settings) for _ in range(workers)]
    loop(cluster, callers)
    cluster.run(seconds)
    return cluster, made


def loop(cluster, callers):
    """Have so many callers ask again as soon as they are answered; return their client."""
    client = cluster.client()
    cluster.run(1.0)
    asked = {}
    poll = client.poll

    def ask(number):
        asked[client.call(number)] = number

    def ask_again():
        poll()
        for call in [call for call in asked if client.ended[call]]:
            number = asked.pop(call)
            cluster.after(0.0002 * (1 + number), partial(ask, number))

    client.poll = ask_again
    for number in range(callers):
        cluster.after(0.0003 * number, partial(ask, number))
    return client


@pytest.mark.parametrize("workers", [2, 4])
def test_few_callers_are_in_one_batch_of_each_worker(workers):
    _, made = closed_loop(4 * workers, workers, 0.1)
    sizes = [len(batch) for worker in made for batch in worker.batches[-10:]]
    assert statistics.fmean(sizes) >= 3.6


def test_workers_that_do_not_hold_are_told_nothing():
    cluster, _ = closed_loop(8, 2, 0.0, seconds=1.0)
    works = cluster.messages(protocol.Work)
    assert works
    assert not any(work.flags & (Flag.MORE | Flag.GO) for work in works)


def test_a_worker_that_waits_begins_when_the_others_are_gone():
    cluster, made = closed_loop(8, 2, 0.1)
    assert any(work.flags & Flag.MORE for work in cluster.messages(protocol.Work))
    made[0].kill()
    before = len(made[1].batches)
    cluster.run(1.0)
    assert len(made[1].batches) - before > 0.7 / (BETA + 0.01)


def test_a_large_payload_is_there_before_the_word_to_begin():
    cluster = Cluster()
    cluster.broker()
    settings = {"beta": BETA, "alpha": 0.00002, "batch_size": 64, "max_latency": 0.1}
    worker = cluster.worker(**settings)
    cluster.run(1.0)
    broker = next(iter(cluster.brokers.values())).core
    [there] = broker.workers.values()
    client = cluster.client()
    call = client.call(b"x" * 20_000_000, "small")
    cluster.until(lambda: there.outbox.sender.busy)
    there.tell_more(False)
    broker.scheduler.dirty[there] = None
    cluster.until(lambda: client.ended[call])
    goes = [bool(work.flags & Flag.GO) for work in cluster.messages(protocol.Work)]
    assert goes[-1]
    assert not any(goes[:-1])
    assert sum(map(len, worker.batches)) == 2


def test_what_has_no_cost_yet_is_in_the_batch_that_is_to_begin():
    cluster = Cluster()
    cluster.broker()
    settings = {"beta": BETA, "alpha": 0.00002, "batch_size": 64, "max_latency": 0.1}
    made = [cluster.worker(cost=lambda _: 1.0, **settings) for _ in range(2)]
    callers = loop(cluster, 8)
    cluster.run(3.0)
    assert callers
    sizes = [len(batch) for worker in made for batch in worker.batches[-10:]]
    assert statistics.fmean(sizes) >= 3.6


def gathering_worker():
    """Return what a broker keeps of a worker that it has told that more is coming."""
    cluster = Cluster()
    cluster.broker()
    cluster.worker(beta=BETA, alpha=0.00002, batch_size=64, max_latency=0.1)
    cluster.run(1.0)
    broker = next(iter(cluster.brokers.values())).core
    [there] = broker.workers.values()
    there.tell_more(True)
    return there


def test_one_that_is_not_ready_is_sent_no_word():
    there = gathering_worker()
    there.outbox.flush(0.0)
    there.drained = True
    there.let_go()
    assert not there.gathers
    assert not there.outbox.flush(0.0)


def test_one_that_is_ready_is_told_that_no_more_is_coming():
    there = gathering_worker()
    there.outbox.flush(0.0)
    there.let_go()
    [frames] = there.outbox.flush(0.0)
    message = protocol.decode(frames)
    assert isinstance(message, protocol.Work)
    assert message.flags == Flag.GO


def failing(batch):
    return [ValueError(f"no {item}") for item in batch]


def test_callers_whose_items_fail_are_gathered_as_well():
    _, made = closed_loop(8, 2, 0.1, predict=failing)
    sizes = [len(batch) for worker in made for batch in worker.batches[-10:]]
    assert statistics.fmean(sizes) >= 3.6


def test_one_that_is_drained_while_it_waits_begins_with_what_it_has():
    cluster, made = closed_loop(8, 2, 0.1)
    core = next(iter(cluster.brokers.values())).core
    cluster.until(lambda: any(each.gathers and each.assigned for each in core.workers.values()))
    [there] = [each for each in core.workers.values() if each.gathers and each.assigned]
    [worker] = [each for each in made if each.core.id == there.id]
    worker.core.drain()
    since = cluster.now
    cluster.until(lambda: not there.tickets)
    assert cluster.now - since < 0.1 + 1.2 * BETA
    other = next(each for each in made if each is not worker)
    before = len(other.batches)
    cluster.run(1.0)  # all callers are the other one's now, which gathers no more
    assert statistics.fmean(map(len, other.batches[before + 3 :])) >= 7


def test_one_whose_batch_takes_too_long_is_not_waited_for():
    cluster, made = closed_loop(8, 2, 0.1)
    core = next(iter(cluster.brokers.values())).core
    made[0].model = made[0].model._replace(beta=100.0)
    cluster.until(lambda: any(each.late for each in core.workers.values()))
    before = len(made[1].batches)
    cluster.run(0.5)
    assert len(made[1].batches) - before > 0.35 / (BETA + 0.01)
