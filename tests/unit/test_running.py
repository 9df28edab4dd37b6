"""What a model's process has begun: one batch, or two where the next was claimed ahead."""

from __future__ import annotations

import pytest

from zstreamer.config import AgentConfig, WorkerConfig
from zstreamer.worker import pipe
from zstreamer.worker.core import WorkerCore
from zstreamer.worker.jobs import Job
from zstreamer.worker.running import Running
from zstreamer.worker.supervisor import agent_config
from zstreamer.worker.suspects import Suspects


def begun(*plans, ahead=True):
    """A process that has claimed plans, each of ids and flags."""
    running = Running()
    running.ahead = ahead
    for serial, (ids, is_ahead, alone) in enumerate(plans, 1):
        running.planned(pipe.Plan(serial, ids, is_ahead), alone)
        running.begun(pipe.Claim(serial, ids))
    return running


def test_two_batches_in_one_process_are_each_others_company():
    running = begun(([1, 2], False, False), ([3], True, False))
    assert running.suspects() == {1: 3, 2: 3, 3: 3}
    assert (list(running.first), running.last) == ([1, 2], 1)
    assert running.ended([1, 2])
    assert running.suspects() == {3: 1}
    assert not running.ended([1, 2])


def test_a_batch_that_a_free_model_claimed_says_that_those_before_it_have_ended():
    running = begun(([1], False, False), ([2], False, False))
    assert running.suspects() == {2: 1}
    assert not running.ended([1])


def test_a_claim_of_nothing_is_no_batch():
    running = begun(([1], False, False), ([], True, False))
    assert running.suspects() == {1: 1}
    assert not begun(([], False, False))


@pytest.mark.parametrize(
    ("ahead", "full", "alone", "expected"),
    [
        (True, True, False, True),
        (True, False, False, False),
        (True, True, True, False),
        (False, True, False, False),
    ],
)
def test_only_full_plans_are_claimed_ahead_and_never_suspects(ahead, full, alone, expected):
    assert begun(([1], False, False), ahead=ahead).may_be_claimed_ahead(full, alone) is expected


def test_nothing_is_claimed_ahead_while_suspects_run():
    running = begun(([1], False, True))
    assert not running.may_be_claimed_ahead(full=True, alone=False)
    assert running.ended([1])
    assert running.may_be_claimed_ahead(full=True, alone=False)


def test_the_window_of_a_model_that_overlaps_has_room_for_a_third_batch():
    core = WorkerCore(AgentConfig(target="m:M", batch_size=8), 1, 0.0, lambda: 0.0)
    [link] = core.links
    assert core._greeting(link)["pool"] == 0
    core.on_child(0.0, pipe.Booted(False, ahead=True))
    assert core._greeting(link)["pool"] == 8


@pytest.mark.parametrize(
    ("devices", "dealt"), [(("0",), ["0", "0", "0"]), (("0", "1"), ["0", "1", "0"]), ((), [""] * 3)]
)
def test_workers_share_the_devices_that_there_are(devices, dealt):
    config = WorkerConfig(target="m:M", num=3, devices=devices)
    assert [agent_config(config, number).device for number in range(3)] == dealt


def test_suspects_that_are_still_prepared_are_not_planned_and_who_is_gone_is_not_waited_for():
    suspects = Suspects()
    jobs = [Job(id, None, id, 9.0, 0.0) for id in (1, 2, 3)]
    suspects.add(jobs[:2])
    suspects.add(jobs[2:])
    assert suspects.ready([1, 7]) == []
    assert suspects.ready([3]) == [jobs[2:]]
    assert suspects.ready([2]) == [jobs[:2]]
    assert suspects.ready([1, 2, 3]) == []
