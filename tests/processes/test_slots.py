"""Real processes that are started again when they die, in slots that are told the time."""

import os
import signal

import pytest

from tests.helpers.waiting import until
from zstreamer.config import WorkerConfig
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import Process
from zstreamer.system.signals import StopRequests
from zstreamer.system.slots import BACKOFF, HEALTHY, MAX_BACKOFF, ProcessSlot, drain

pytestmark = pytest.mark.timeout(60)

STEP = 0.05
"""Seconds between two looks at a slot."""

# Ends at once, with an exit code that it is told.
DYING = """
import sys
from zstreamer.config import WorkerConfig
from zstreamer.system.process import read_config

sys.exit(read_config(WorkerConfig)[0].num)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a process that ends at once with exit code 7."""
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda: Process("dying", WorkerConfig(num=7))


@pytest.fixture
def slot(start):
    """A slot whose process was started at 0 s."""
    slot = ProcessSlot("a process", start)
    slot.keep(0.0)
    return slot


def pause(slot, died):
    """Have the process die at this time; return the seconds until another is started."""
    slot.process.wait()
    slot.keep(died)
    steps = 0
    while slot.process is None:
        steps += 1
        slot.keep(died + steps * STEP)
    return steps * STEP


def test_a_process_that_keeps_dying_is_started_again_at_growing_intervals(slot):
    now, pauses = 0.0, []
    for _ in range(9):
        pauses.append(pause(slot, now))
        now += pauses[-1]
    doubling = [min(BACKOFF * 2**n, MAX_BACKOFF) for n in range(1, 10)]
    assert pauses == pytest.approx(doubling, abs=2 * STEP)
    assert slot.code == 7


def test_a_process_that_has_lived_for_a_while_is_started_again_soon(slot):
    now = pause(slot, 0.0)
    now += pause(slot, now)
    assert pause(slot, now) == pytest.approx(8 * BACKOFF, abs=2 * STEP)
    assert pause(slot, now + 2 * HEALTHY) == pytest.approx(BACKOFF, abs=2 * STEP)


def test_a_final_exit_code_ends_a_slot(start):
    slot = ProcessSlot("a process", start, final=[7])
    slot.keep(0.0)
    slot.process.wait()
    for now in (0.0, 100.0):
        slot.keep(now)
        assert (slot.done, slot.process, slot.code) == (True, None, 7)


# Ends 0.3 s after the first request to stop, or at once at the second; a third is too late for it.
ASKED = """
import pathlib, signal, sys, time
from zstreamer.config import WorkerConfig
from zstreamer.system.process import read_config
from zstreamer.system.signals import StopRequests

with StopRequests() as stop:
    config = read_config(WorkerConfig)[0]
    folder = pathlib.Path(config.repository)
    (folder / "ready").touch()
    while not stop.requests:
        time.sleep(0.01)
    end = time.monotonic() + config.drain_grace
    while time.monotonic() < end and stop.requests == 1:
        time.sleep(0.01)
    (folder / "ended").write_text(str(stop.requests))
    if config.batch_size > 1:
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("grace", "needs", "deaf", "requests", "codes"),
    [
        (10.0, 0.5, 1, "1", [ExitCode.OK]),  # within its grace: nothing cuts the drain short
        (0.3, 60.0, 1, "2", [ExitCode.OK]),  # late: it still ends what is its own
        (0.3, 60.0, 2, "2", [ExitCode.FAILED]),  # and is killed where it does not end
    ],
)
def test_a_late_process_is_asked_once_more_before_it_is_killed(
    tmp_path, monkeypatch, grace, needs, deaf, requests, codes
):
    (tmp_path / "asked.py").write_text(ASKED)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = WorkerConfig(repository=str(tmp_path), drain_grace=needs, batch_size=deaf)
    slot = ProcessSlot("a process", lambda: Process("asked", config))
    slot.keep(0.0)
    until((tmp_path / "ready").exists)
    with StopRequests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert drain([slot], stop, None, grace) == codes
    assert (tmp_path / "ended").read_text() == requests
