"""How long a full window takes, and which calls are therefore not sent any more."""

from __future__ import annotations

import pytest

from tests.unit.test_client_core import Desk
from zstreamer.client.overload import MARGIN, Overload
from zstreamer.errors import Overloaded
from zstreamer.wire import protocol

WINDOW = 4
SMALL = protocol.Welcome(1, False, [], WINDOW, 2**20, 2**20)


def test_nothing_is_known_before_a_window_of_answers():
    overload = Overload()
    overload.answered(1, 0.5, WINDOW)
    assert overload.needed == MARGIN * 0.5  # whatever was out before is known to be in
    overload = Overload()
    assert overload.needed == 0.0


def test_the_shortest_time_of_two_windows_counts():
    overload = Overload()
    for seconds in (0.5, 0.6, 9.0, 9.0, 9.0):  # a stall meets a whole window
        overload.answered(1, seconds, WINDOW)
    assert overload.needed == MARGIN * 0.6
    for seconds in (9.0,) * 2 * WINDOW:
        overload.answered(1, seconds, WINDOW)
    assert overload.needed == MARGIN * 9.0


def test_room_in_the_window_makes_it_unknown():
    overload = Overload()
    overload.answered(1, 0.5, WINDOW)
    overload.full(True)
    assert overload.needed
    overload.full(False)
    assert not overload.needed


@pytest.fixture
def desk():
    """A client with a small window, which is full; each window takes a second."""
    desk = Desk()
    first = desk.call("first", timeout=60.0)
    desk.connect(welcome=SMALL)
    desk.answer(first.first)
    desk.turn()
    for _ in range(5 * WINDOW):
        desk.call("ahead", timeout=60.0)
    desk.turn()
    desk.submitted()
    return desk


def a_window_of_answers(desk: Desk) -> None:
    ids = list(desk.link.sent)
    desk.turn(1.0)
    desk.answer(*ids)
    desk.turn()


def test_a_call_that_would_be_answered_too_late_is_refused_and_not_sent(desk):
    for _ in range(3):
        a_window_of_answers(desk)
    late = desk.call("late", timeout=MARGIN * 0.9 + 1.0)
    in_time = desk.call("in time", timeout=60.0)
    desk.submitted()
    a_window_of_answers(desk)  # now the two are next
    a_window_of_answers(desk)
    assert late.done
    assert isinstance(late.error, Overloaded)
    assert late.error.retry_after == pytest.approx(MARGIN)
    assert late.first not in desk.submitted()
    a_window_of_answers(desk)
    assert in_time.done
    assert in_time.error is None


def test_a_large_call_is_never_refused_for_what_is_ahead(desk):
    for _ in range(3):
        a_window_of_answers(desk)
    large = desk.call(*range(100), timeout=1.2)
    a_window_of_answers(desk)
    assert not large.done


def test_a_stall_refuses_nobody(desk):
    for _ in range(2):
        a_window_of_answers(desk)
    call = desk.call("after a stall", timeout=10.0)
    desk.turn(4.0)  # a worker is lost and restarted, say
    a_window_of_answers(desk)
    a_window_of_answers(desk)
    a_window_of_answers(desk)
    assert call.sent or call.done
    assert call.error is None
