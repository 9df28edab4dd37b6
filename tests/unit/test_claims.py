"""What a model's process has claimed, in memory that its agent shares."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from zstreamer.system.interpreter import environment, module_command
from zstreamer.worker.claims import PLACES, Claims

NOTE_AND_WAIT = """
import sys, time
from zstreamer.worker.claims import Claims
claims = Claims(int(sys.argv[1]))
claims.note(7)
claims.note(9)
print("noted", flush=True)
time.sleep(60)
"""


@pytest.fixture
def ends():
    """The agent's end and a child's, which has a descriptor of its own."""
    agent = Claims()
    child = Claims(os.dup(agent.fd))
    yield agent, child
    child.close()
    agent.close()


def test_news_are_told_once_and_in_order(ends):
    agent, child = ends
    assert agent.news() == []
    child.note(3)
    child.note(2**40)
    assert agent.news() == [3, 2**40]
    assert agent.news() == []


def test_more_claims_pass_in_time_than_the_page_has_places(ends):
    agent, child = ends
    for serial in range(3 * PLACES):
        child.note(serial)
        assert agent.news() == [serial]


def test_what_a_killed_process_had_claimed_can_still_be_read():
    agent = Claims()
    [python, *_] = module_command("zstreamer")
    with subprocess.Popen(
        [python, "-c", NOTE_AND_WAIT, str(agent.fd)],
        pass_fds=[agent.fd],
        stdout=subprocess.PIPE,
        env=environment({}),
    ) as process:
        assert process.stdout.readline() == b"noted\n"
        process.send_signal(signal.SIGKILL)
    assert agent.news() == [7, 9]
    agent.close()
