"""Real processes that are started again when they die, in slots that are told the time."""

import pytest

from zstreamer.config import WorkerConfig
from zstreamer.system.process import Process
from zstreamer.system.slots import BACKOFF, HEALTHY, MAX_BACKOFF, ProcessSlot

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
