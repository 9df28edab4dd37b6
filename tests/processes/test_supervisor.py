"""A worker's place is filled again when its agent dies, and ever more slowly if that goes on."""

import pytest

from zstreamer.config import WorkerConfig
from zstreamer.system.exitcodes import ExitCode
from zstreamer.worker.supervisor import BACKOFF, HEALTHY, MAX_BACKOFF, Slot, agent_config

STEP = 0.05
"""Seconds of the test's own clock between two looks."""


class Place:
    """A slot with real agents, which the test kills, and with the test's clock."""

    def __init__(self, tmp_path):
        settings = WorkerConfig("tests.helpers.models:double", (f"ipc://{tmp_path}/nobody",))
        self.slot = Slot(agent_config(settings, 0))
        self.now = 100.0
        self.slot.check(self.now)

    def kill(self, after):
        """Let the agent live for so many seconds; return how many it takes to be replaced."""
        self.now += after
        process = self.slot.process
        process.kill()
        process.wait(20)
        died = self.now
        self.slot.check(self.now)
        while self.slot.process is None:
            self.now += STEP
            assert self.now < died + 60
            self.slot.check(self.now)
        return self.now - died


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.slot.process.kill()
    place.slot.process.close()


def test_an_agent_that_keeps_dying_is_started_again_at_growing_intervals(place):
    pauses = [place.kill(after=0.1) for _ in range(8)]
    expected = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, MAX_BACKOFF, MAX_BACKOFF]
    assert pauses == pytest.approx(expected, abs=2 * STEP)


def test_one_that_was_well_for_a_while_is_started_again_soon(place):
    for _ in range(4):
        place.kill(after=0.1)
    assert place.kill(after=HEALTHY + 1) == pytest.approx(BACKOFF, abs=2 * STEP)


def test_one_whose_model_cannot_start_is_not(tmp_path):
    settings = WorkerConfig("tests.helpers.models:nothing", (f"ipc://{tmp_path}/nobody",))
    slot = Slot(agent_config(settings, 0))
    slot.check(100.0)
    assert slot.process.wait(20) == ExitCode.MODEL
    for now in (101.0, 200.0):
        slot.check(now)
    assert slot.process is None
    assert slot.final == ExitCode.MODEL
