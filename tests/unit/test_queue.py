"""The order in which waiting items are served."""

from __future__ import annotations

from collections import Counter
from itertools import count, groupby, islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.lots import Lot
from zstreamer.broker.models import Model
from zstreamer.broker.queue import MOST, QUANTUM, FairQueue
from zstreamer.broker.tenants import Tenant, Terms
from zstreamer.wire.protocol import PART

MODEL = Model("m")
NOBODY = Tenant("", Terms())


def clients(*ids, tenant=NOBODY):
    return [ClientRecord(id, 1000, tenant=tenant) for id in ids]


def lot(client, *ids, priority=0, lane=0):
    count = len(ids)
    budgets, payloads = [1000] * count, [b""] * count
    new = Lot(
        client,
        MODEL,
        list(ids),
        budgets,
        list(payloads),
        0.0,
        priority,
        lane,
        once=False,
        movable=False,
    )
    client.open(new)
    return new


def order(queue, many=None):
    """Take out so many items, one at a time; return their tags."""
    tags: list[tuple[int, int]] = []
    while (many is None or len(tags) < many) and (lots := queue.take(1)):
        tags += [(each.client.id, id) for each in lots for id in each.ids]
    return tags


def test_the_oldest_of_a_client_is_served_first():
    queue = FairQueue()
    (a,) = clients(1)
    for n in range(5):
        queue.push(lot(a, n))
    assert order(queue) == [(1, n) for n in range(5)]


def runs(tags):
    """How many in a row are of the same client, and of which."""
    return [(client, len(list(same))) for client, same in groupby(client for client, _ in tags)]


def test_clients_are_served_in_turn_however_much_one_of_them_asks():
    queue = FairQueue()
    a, b, c = clients(1, 2, 3)
    for n in range(100):
        queue.push(lot(a, n))
    queue.push(lot(b, *range(QUANTUM + 2)))
    queue.push(lot(c, 0))
    found = runs(order(queue, 3 * QUANTUM + 3))
    assert found == [(1, QUANTUM), (2, QUANTUM), (3, 1), (1, QUANTUM), (2, 2)]


def test_lanes_of_a_client_are_served_in_turn():
    queue = FairQueue()
    (a,) = clients(1)
    queue.push(lot(a, *range(100), lane=7))
    queue.push(lot(a, 100))
    assert (1, 100) in order(queue, QUANTUM + 1)


def test_a_client_of_many_lanes_gets_no_more_than_one_of_one():
    queue = FairQueue()
    a, b = clients(1, 2)
    for lane in range(10):
        queue.push(lot(a, *range(100 * lane, 100 * lane + 50), lane=lane))
    queue.push(lot(b, *range(500)))
    assert Counter(client for client, _ in order(queue, 10 * QUANTUM)) == {
        1: 5 * QUANTUM,
        2: 5 * QUANTUM,
    }


def test_higher_priorities_go_first():
    queue = FairQueue()
    a, b = clients(1, 2)
    queue.push(lot(a, 1, priority=0))
    queue.push(lot(a, 2, priority=9))
    queue.push(lot(b, 3, priority=5))
    assert order(queue) == [(1, 2), (2, 3), (1, 1)]


def test_what_comes_back_goes_before_others_of_its_priority_but_not_of_a_higher_one():
    queue = FairQueue()
    a, b = clients(1, 2)
    queue.push(lot(a, 1))
    queue.push(lot(b, 2, priority=1))
    for n in (3, 4):
        queue.push_returned(lot(b, n))
    assert order(queue) == [(2, 2), (2, 3), (2, 4), (1, 1)]


def test_a_client_gets_several_items_at_its_turn_and_they_stay_together():
    queue = FairQueue()
    a, b, c = clients(1, 2, 3)
    queue.push(lot(a, *range(100)))
    queue.push(lot(b, *range(100)))
    queue.push(lot(c, 0, 1))
    taken = queue.take(3 * QUANTUM + 2)
    assert [(each.client.id, len(each)) for each in taken] == [
        (1, QUANTUM),
        (2, QUANTUM),
        (3, 2),
        (1, QUANTUM),
    ]


@pytest.mark.parametrize(("batch", "turn"), [(1, QUANTUM), (40, 40), (10**6, MOST)])
def test_a_turn_is_as_long_as_a_batch_within_limits(batch, turn):
    queue = FairQueue()
    queue.fit(batch)
    for client in clients(1, 2):
        queue.push(lot(client, *range(3 * MOST)))
    assert runs(order(queue, 2 * turn)) == [(1, turn), (2, turn)]


def test_whoever_had_nothing_waiting_does_not_wait_for_the_others_round():
    queue = FairQueue()
    a, b, c = clients(1, 2, 3)
    for client in (a, b):
        queue.push(lot(client, *range(100)))
    queue.take(2 * QUANTUM)
    queue.push(lot(c, 0))
    assert queue.take(QUANTUM)[0].client is c


def test_clients_that_come_back_with_one_item_each_time_do_not_starve_a_large_call():
    queue = FairQueue()
    large, *small = clients(*range(20))
    queue.push(lot(large, *range(1000)))
    ids = count()
    served: Counter[int] = Counter()
    for _ in range(1000):
        for client in small:
            if not client.items:
                queue.push(lot(client, next(ids)))
        for each in queue.take(1):
            served[each.client.id] += 1
            each.client.end(each.ids, 0)
    assert served[0] >= 1000 / 20


def test_draining_takes_everything_in_order():
    queue = FairQueue()
    (a,) = clients(1)
    lots = [lot(a, n) for n in range(3)]
    for each in lots:
        queue.push(each)
    queue.give_up(lots[1], {1})
    assert queue.drain() == [lots[0], lots[2]]
    assert len(queue) == 0


def test_given_up_items_leave_nothing_behind():
    queue = FairQueue()
    a, b = clients(1, 2)
    keep = lot(a, 0, 1, 2)
    queue.push(keep)
    for n in range(3, 1000):
        each = lot(b, n, lane=n)
        queue.push(each)
        queue.give_up(each, {n})
    queue.give_up(keep, {1})
    assert len(queue) == 2
    (level,) = queue._levels.values()
    assert list(level.tenants.children[NOBODY].children) == [1]
    assert [each.ids for each in queue.take(10)] == [[0, 2]]
    assert queue.take(1) == []


def test_what_is_ahead_counts_a_clients_fair_share_only():
    queue = FairQueue()
    a, b, c = clients(1, 2, 3)
    for n in range(1000):
        queue.push(lot(a, n))
    for n in range(2):
        queue.push(lot(b, n))
    assert queue.ahead(a, 0) >= 1000
    assert queue.ahead(b, 0) <= 2 + QUANTUM
    assert queue.ahead(c, 0) <= 2 + QUANTUM
    assert queue.ahead(c, 1) == 0
    queue.push(lot(c, 0, priority=5))
    assert queue.ahead(c, 5) >= 1
    assert queue.ahead(b, 0) >= 1
    (stranger,) = clients(9)
    for client, priority, adds in ((a, 0, 1), (b, 0, 7), (c, 0, 1), (c, 5, 2), (stranger, -1, 1)):
        ahead = queue.ahead(client, priority, adds)
        assert ahead <= queue.at_most_ahead(client, priority, adds) <= len(queue)


@pytest.mark.parametrize("batch", [1, 40, 64])
def test_no_more_is_served_before_new_items_than_was_said(batch):
    queue = FairQueue()
    queue.fit(batch)
    a, b = clients(1, 2)
    queue.push(lot(a, *range(1000)))
    queue.push(lot(b, *range(100)))
    ahead = queue.ahead(b, 0, 1)
    assert ahead <= queue.at_most_ahead(b, 0, 1)
    queue.push(lot(b, 100))
    assert order(queue).index((2, 100)) <= ahead


@given(
    some.lists(
        some.tuples(
            some.sampled_from(["push", "return", "give up", "take"]),
            some.integers(1, 3),
            some.integers(0, 1),
            some.integers(0, 2),
            some.integers(1, 5),
        ),
        max_size=300,
    )
)
def test_every_item_comes_out_once_unless_it_was_given_up(moves):
    queue = FairQueue()
    other = Tenant("other", Terms(weight=2.5))
    known = {each.id: each for each in [*clients(1, 2), *clients(3, tenant=other)]}
    waiting: dict[int, int] = {}  # id → priority
    out: list[Lot] = []
    ids = count()
    for move, name, priority, lane, many in moves:
        client = known[name]
        most = queue.at_most_ahead(client, priority, many)  # `ahead` would put all in its place
        if lane:
            assert queue.ahead(client, priority, many) <= most
        if move == "push":
            new = list(islice(ids, many))
            queue.push(lot(client, *new, priority=priority, lane=lane))
            waiting.update(dict.fromkeys(new, priority))
        elif move == "return" and out:
            back = out.pop()
            waiting.update(dict.fromkeys(back.ids, back.priority))
            queue.push_returned(back)
        elif move == "give up":
            some_lot = next((client.items[id] for id in waiting if id in client.items), None)
            if some_lot is not None:
                gone = set(some_lot.ids[:many])
                queue.give_up(some_lot, gone)
                client.end(gone, 0)
                for id in gone:
                    del waiting[id]
        elif move == "take":
            taken = queue.take(many)
            assert sum(map(len, taken)) == min(many, len(waiting))
            for each in taken:
                assert each.priority == max(waiting.values())
                for id in each.ids:
                    del waiting[id]
                out.append(each)
        assert len(queue) == queue.items == len(waiting)
    assert {id for each in queue.drain() for id in each.ids} == set(waiting)
    assert len(queue) == 0


@pytest.mark.parametrize(("size", "parts"), [(PART // 2 + 1, 1), (PART + 1, 3)])
def test_a_lot_is_cut_only_where_an_item_is_large(size, parts):
    (client,) = clients(1)
    payloads: list[Any] = [bytes(size)] * 3
    new = Lot(client, MODEL, [1, 2, 3], [1000] * 3, payloads, 0.0, 0, 0, once=False, movable=False)
    client.open(new)
    assert len(new.apart()) == parts
