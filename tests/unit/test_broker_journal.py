"""What a broker's log says of workers that come and go, and how much of it."""

from __future__ import annotations

import logging
import re

import pytest

from tests.unit.test_broker_core import Room
from zstreamer.broker.journal import BURST, REFILL, REMINDER, Journal
from zstreamer.wire.protocol import WorkerState


@pytest.fixture
def room(caplog):
    """A broker; what its journal writes is in caplog."""
    caplog.set_level(logging.INFO, "zstreamer.broker")
    return Room()


@pytest.fixture
def journal(room):
    return Journal(room.core)


def told(caplog, words):
    """The lines with these words since the last look."""
    lines = [x.getMessage() for x in caplog.records if words in x.getMessage()]
    caplog.clear()
    return lines


def fail(room, journal, seconds):
    """A worker says ten times a second that it has given up, each time for another reason."""
    for number in range(round(10 * seconds)):
        room.state("W", WorkerState.RESTARTING, f"reason {number}")
        room.state("W", WorkerState.BROKEN, f"reason {number}")
        room.turn(0.1)
        journal.look(room.now)


def test_each_of_some_failures_is_told(room, journal, caplog):
    room.worker("W")
    journal.look(room.now)
    fail(room, journal, 3)
    assert len(told(caplog, "worker failed")) == 30


def test_of_a_worker_that_fails_again_and_again_few_lines_are_written(room, journal, caplog):
    room.worker("W")
    fail(room, journal, 100)
    assert len(told(caplog, "worker failed")) <= BURST + 100 * REFILL + 100 / REMINDER + 1


@pytest.mark.parametrize("ends", [False, True])
def test_all_that_was_held_back_is_counted_though_nothing_follows(room, journal, caplog, ends):
    room.worker("W")
    fail(room, journal, 20)
    shown = len(told(caplog, "worker failed"))
    if ends:
        journal.close()
    else:
        room.turn(REMINDER)
        journal.look(room.now)
    lines = told(caplog, "worker failed")
    assert "reason 199" in lines[-1]
    counts = [int(words[1]) for words in (re.search(r"last of (\d+)", x) for x in lines) if words]
    assert shown + sum(counts) + len(lines) - len(counts) >= 200


def test_one_kind_of_change_does_not_hide_another(room, journal, caplog):
    room.worker("W")
    fail(room, journal, 30)
    caplog.clear()
    room.worker("V")
    room.turn(1)
    journal.look(room.now)
    assert len(told(caplog, "worker ready")) == 1
