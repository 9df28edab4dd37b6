"""Items that a pool prepares, dropped before and while they come back."""

from __future__ import annotations

import socket
import threading

import pytest

from zstreamer.worker import pipe
from zstreamer.worker.child import Child
from zstreamer.worker.claims import Claims
from zstreamer.worker.pool import Pool, Task
from zstreamer.worker.preparation import Ready
from zstreamer.worker.target import Description


@pytest.fixture
def child():
    """A child with a pool of no processes: the test says what they have prepared."""
    here, there = socket.socketpair()
    claims = Claims()
    with here, there:
        child = Child(here, claims)
        child._pool = Pool(Description("models:Model"), 0, child._take_prepared)
        yield child
    claims.close()


def prepared(child, id):
    child._pool._done([(Task(id, b"", once=False), Ready("value", 1.0))])


def test_what_was_dropped_before_it_is_prepared_is_not_held(child):
    child._take(pipe.Items([1, 2], [b"", b""], once=False))
    child._take(pipe.Drop([1]))
    prepared(child, 1)
    prepared(child, 2)
    assert list(child._held) == [2]


def test_what_is_dropped_while_it_comes_back_is_not_held(child):
    dropping = threading.Thread(target=child._take, args=(pipe.Drop([1]),))

    def deliver(pairs):
        dropping.start()
        dropping.join(0.2)  # time to overtake this delivery, which it must not
        child._take_prepared(pairs)

    child._pool._deliver = deliver
    child._take(pipe.Items([1], [b""], once=False))
    prepared(child, 1)
    dropping.join(10)
    assert not dropping.is_alive()
    assert child._held == {}
