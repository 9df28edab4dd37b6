"""A shadow's copies where callers give up, go away, or use an id again."""

from __future__ import annotations

import pytest

from tests.unit.test_versions import Versioned
from zstreamer.broker import shadow as shadows
from zstreamer.broker.sessions import Side
from zstreamer.wire import protocol


@pytest.fixture
def room():
    """Workers W of version 1 and V of version 2, which is the shadow; a client C."""
    room = Versioned()
    room.client("C")
    room.serve("W", "1", batch_size=64)
    room.serve("V", "2", batch_size=1)
    room.route(weights={"1": 1}, shadow="2")
    return room


def counts(room):
    row = room.family()["shadow"]
    return {key: row[key] for key in ("same", "different", "failed", "open")}


def test_an_id_that_is_used_again_before_its_copy_is_answered_ends_nothing(room):
    room.submit("C", 100, 101, 102, model="bert", budget=60.0)
    room.report("W", *room.work("W"))
    busy = room.work("V")
    assert len(busy) == 2
    for _ in range(2):  # both copies of item 5 wait, and their time ends there
        room.submit("C", 5, model="bert", budget=1.0)
        room.report("W", *room.work("W"))
    assert room.answers("C").keys() == {100, 101, 102, 5}
    room.turn(2.0)
    while busy:
        room.report("V", *busy)
        busy = room.work("V")
    assert counts(room) == {"same": 3, "different": 0, "failed": 1, "open": 0}
    room.submit("C", 5, model="bert")
    assert room.answer_all("W", "V") == {"W": 1, "V": 1}
    assert counts(room)["same"] == 4


def test_the_copy_of_an_id_that_is_used_again_is_compared_with_the_new_answer(room):
    room.submit("C", 5, model="bert")
    room.report("W", *room.work("W"), outcome=b"old")
    room.submit("C", 5, model="bert")
    room.report("W", *room.work("W"), outcome=b"new")
    first, second = room.work("V")
    room.report("V", first, outcome=b"old")
    room.report("V", second, outcome=b"new")
    assert counts(room) == {"same": 1, "different": 0, "failed": 0, "open": 0}


@pytest.mark.parametrize("how", ["cancelled", "forgotten"])
def test_items_that_are_given_up_take_no_place_from_those_that_are_not(room, how, monkeypatch):
    monkeypatch.setattr(shadows, "MAX_PAIRS", 2)
    room.client("D")
    room.submit("D", 1, model="bert")
    waited_for = room.work("W")
    room.report("V", *room.work("V"))
    for number in range(3):
        room.submit("C", number, model="bert")
        room.report("V", *room.work("V"))
        if how == "cancelled":
            room.from_client("C", protocol.plain(protocol.Cancel([number])))
        else:
            room.lose("C", Side.CLIENT)
            room.turn(room.core.config.resume_grace + 1.0)
            room.report("W")
            room.report("V")
            room.client("C")
    room.report("W", *waited_for)
    assert room.answers("D") == {1: b"out"}
    assert counts(room)["same"] == 1


def test_the_oldest_of_too_many_are_forgotten_and_new_ones_are_compared(room, monkeypatch):
    monkeypatch.setattr(shadows, "MAX_PAIRS", 2)
    room.submit("C", *range(5), model="bert")
    assert room.answer_all("W", "V") == {"W": 5, "V": 5}
    assert counts(room) == {"same": 2, "different": 0, "failed": 0, "open": 0}
