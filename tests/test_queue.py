"""The order in which waiting items are served."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as some

from broker.clients import Client
from broker.items import Item, ItemState
from broker.models import Model
from broker.queue import FairQueue

MODEL = Model("m")


def clients(*ids):
    return [Client(id, 1000) for id in ids]


def item(client, id, priority=0, lane=0):
    return Item(client, id, MODEL, b"", 0.0, priority, lane)


def order(queue, count=None):
    popped: list[tuple[int, int]] = []
    while (count is None or len(popped) < count) and (next_ := queue.pop()) is not None:
        popped.append((next_.client.id, next_.id))
    return popped


def test_the_oldest_of_a_client_is_served_first():
    queue = FairQueue()
    (a,) = clients(1)
    for n in range(5):
        queue.push(item(a, n))
    assert order(queue) == [(1, n) for n in range(5)]


def test_clients_are_served_in_turn_however_much_one_of_them_asks():
    queue = FairQueue()
    a, b, c = clients(1, 2, 3)
    for n in range(100):
        queue.push(item(a, n))
    for n in range(3):
        queue.push(item(b, n))
    queue.push(item(c, 0))
    assert order(queue, 7) == [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (2, 2)]


def test_lanes_of_a_client_are_served_in_turn():
    queue = FairQueue()
    (a,) = clients(1)
    for n in range(10):
        queue.push(item(a, n, lane=7))
    queue.push(item(a, 100))
    assert order(queue, 3) == [(1, 0), (1, 100), (1, 1)]


def test_a_client_of_many_lanes_gets_no_more_than_one_of_one():
    queue = FairQueue()
    a, b = clients(1, 2)
    for lane in range(10):
        queue.push(item(a, lane, lane=lane))
    for n in range(10):
        queue.push(item(b, n))
    assert Counter(client for client, _ in order(queue, 10)) == {1: 5, 2: 5}


def test_higher_priorities_go_first():
    queue = FairQueue()
    a, b = clients(1, 2)
    queue.push(item(a, 1, priority=0))
    queue.push(item(a, 2, priority=9))
    queue.push(item(b, 3, priority=5))
    assert order(queue) == [(1, 2), (2, 3), (1, 1)]


def test_what_comes_back_goes_before_others_of_its_priority_but_not_of_a_higher_one():
    queue = FairQueue()
    a, b = clients(1, 2)
    queue.push(item(a, 1))
    queue.push(item(b, 2, priority=1))
    for n in (3, 4):
        queue.push_returned(item(b, n))
    assert order(queue) == [(2, 2), (2, 3), (2, 4), (1, 1)]


def test_draining_takes_everything_in_order():
    queue = FairQueue()
    (a,) = clients(1)
    items = [item(a, n) for n in range(3)]
    for each in items:
        queue.push(each)
    queue.give_up(items[1])
    assert queue.drain() == [items[0], items[2]]
    assert len(queue) == 0


def test_given_up_items_do_not_pile_up():
    queue = FairQueue()
    (a,) = clients(1)
    keep = item(a, 0)
    queue.push(keep)
    for n in range(1, 10_000):
        each = item(a, n)
        queue.push(each)
        queue.give_up(each)
    assert len(queue) == 1
    lanes = [
        lane
        for level in queue._levels.values()
        for t in level.clients.values()
        for lane in t.lanes.values()
    ]
    assert sum(map(len, lanes)) < 100
    assert queue.pop() is keep
    assert queue.pop() is None


def test_what_is_ahead_counts_a_clients_fair_share_only():
    queue = FairQueue()
    a, b, c = clients(1, 2, 3)
    for n in range(1000):
        queue.push(item(a, n))
    for n in range(2):
        queue.push(item(b, n))
    assert queue.ahead(1, 0) >= 1000
    assert queue.ahead(2, 0) <= 8
    assert queue.ahead(3, 0) <= 4
    assert queue.ahead(c.id, 1) == 0
    queue.push(item(c, 0, priority=5))
    assert queue.ahead(3, 5) >= 1
    assert queue.ahead(2, 0) >= 1


@given(
    some.lists(
        some.tuples(
            some.sampled_from(["push", "return", "give up", "pop"]),
            some.integers(1, 3),
            some.integers(0, 1),
            some.integers(0, 2),
        ),
        max_size=300,
    )
)
def test_every_item_comes_out_once_unless_it_was_given_up(moves):
    queue = FairQueue()
    known = {client.id: client for client in clients(1, 2, 3)}
    waiting: dict[int, Item] = {}
    out: list[Item] = []
    for n, (move, client, priority, lane) in enumerate(moves):
        if move == "push":
            waiting[n] = item(known[client], n, priority, lane)
            queue.push(waiting[n])
        elif move == "return" and out:
            back = out.pop()
            waiting[back.id] = back
            queue.push_returned(back)
        elif move == "give up" and waiting:
            queue.give_up(waiting.pop(list(waiting)[client % len(waiting)]))
        elif move == "pop":
            popped = queue.pop()
            assert (popped is None) == (not waiting)
            if popped is not None:
                assert popped.priority == max(each.priority for each in waiting.values())
                del waiting[popped.id]
                out.append(popped)
        assert len(queue) == queue.items == len(waiting)
    rest = queue.drain()
    assert {each.id for each in rest} == set(waiting)
    assert len(rest) == len(waiting)
    assert all(each.state is ItemState.QUEUED for each in rest)
