"""A shadow's copies where callers give up, go away, or use an id again."""

from __future__ import annotations

import pytest

from tests.helpers.scrape import value
from tests.unit.test_versions import Versioned
from zstreamer import errors
from zstreamer.broker import shadow as shadows
from zstreamer.broker.metrics import Metrics
from zstreamer.broker.routes import MAX_VERSIONS
from zstreamer.broker.sessions import Side
from zstreamer.histogram import Histogram
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


def shown(room, name, version="2", **labels):
    """A sample of the broker's page."""
    text = Metrics(room.core, Histogram()).text().decode()
    return value(text, f"zstreamer_shadow_{name}", model=f"bert@{version}", **labels)


def outcomes(room, version="2"):
    found = {each: shown(room, "items_total", version, outcome=each) for each in shadows.OUTCOMES}
    return {each: int(count) for each, count in found.items() if count}


def test_the_metrics_tell_what_became_of_copies_also_after_the_route_has_changed(room):
    room.submit("C", 1, 2, 3, 4, model="bert")
    first, second, third, fourth = room.work("W")
    room.report("W", first, second)
    room.report("W", third, outcome=errors.to_wire(errors.PredictError("no", "ValueError")))
    copies = room.work("V")
    room.report("V", copies.pop(0))
    assert shown(room, "copies_total") == 4
    assert shown(room, "open_items") == 3
    while copies := copies + room.work("V"):
        room.report("V", *copies, outcome=b"other")
        copies = []
    room.report("W", fourth)
    assert outcomes(room) == {"same": 1, "different": 2, "uncompared": 1}
    room.lose("V", Side.WORKER)
    room.submit("C", 5, model="bert")
    room.answer_all("W")
    before = {"same": 1, "different": 2, "uncompared": 1, "skipped": 1}
    assert outcomes(room) == before
    room.route(shadow="3")
    assert outcomes(room) == before, "a counter does not begin anew"
    room.submit("C", 6, model="bert")
    assert outcomes(room, "3") == {"skipped": 1}
    for number in range(4, 100):
        room.route(shadow=str(number))
    text = Metrics(room.core, Histogram()).text().decode()
    assert text.count("zstreamer_shadow_copies_total{") == MAX_VERSIONS
