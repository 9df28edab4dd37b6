"""Processes that prepare for a model: what they give back, and what happens when they die."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.waiting import is_gone, until
from zstreamer import ManagedModel, Streamer, errors
from zstreamer.worker import handover


class Unpicklable(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


class Pixels(ManagedModel):
    """Doubles arrays where it prepares; answers which process did and what it was given.

    A text is a command to the process that prepares it: "die" ends it, "bad" fails there,
    "odd" becomes what cannot be unpickled, and "once:FILE" ends it where FILE is not there yet.
    """

    example = (np.zeros(3, np.float32),)

    def init_model(self, factor=2):
        self.factor = factor  # for the warm-up, which prepares in the model's process

    def init_prepare(self, factor=2):
        self.factor = factor

    def prepare(self, item):
        if isinstance(item, str):
            self._obey(item)
            if item == "odd":
                return os.getpid(), Unpicklable("a", "b")
        return os.getpid(), item * self.factor

    def _obey(self, command):
        if command == "bad":
            raise errors.TooLarge("a bad item")
        if command == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        _, _, path = command.partition(":")
        if path and not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def predict(self, batch):
        return [[pid, os.getpid(), value] for pid, value in batch]


@pytest.fixture(scope="module")
def streamer():
    with Streamer(
        Pixels, 16, model_init_kwargs={"factor": 3}, prepare_workers=2, worker_timeout=60
    ) as streamer:
        yield streamer


def test_items_are_prepared_by_processes_of_their_own(streamer):
    large = np.arange(60_000, dtype=np.float32)
    answers = streamer.predict([large + n for n in range(40)])
    for n, (prepared_by, predicted_by, value) in enumerate(answers):
        assert prepared_by != predicted_by
        np.testing.assert_array_equal(value, 3 * (large + n))
    assert len({prepared_by for prepared_by, *_ in answers}) == 2


def test_an_item_that_cannot_be_prepared_fails_alone(streamer):
    with pytest.raises(errors.TooLarge, match="a bad item"):
        streamer.predict(["bad"])


def test_what_cannot_be_unpickled_fails_alone_and_ends_no_process(streamer):
    good = [np.ones(3)] * 20
    (_, before, _), *_ = streamer.predict(good[:1])
    futures = [streamer.submit(each) for each in (good, ["odd"], good)]
    with pytest.raises(errors.PredictError, match=r"cannot be unpickled: .*second"):
        futures[1].result(60)
    answers = futures[0].result(60) + futures[2].result(60)
    assert {predicted_by for _, predicted_by, _ in answers} == {before}, "the model lives on"


def test_a_prepare_worker_that_dies_loses_nothing(streamer, tmp_path):
    items = [np.ones(3), f"once:{tmp_path / 'died'}", *[np.ones(3)] * 40]
    answers = streamer.predict(items)
    assert [len(answer) for answer in answers] == [3] * 42
    assert len({predicted_by for _, predicted_by, _ in answers}) == 1, "the model lives on"


def test_an_item_that_ends_them_whenever_it_is_alone_is_lost_and_its_mates_are_not(streamer):
    futures = [streamer.submit([each]) for each in (np.ones(3), "die", np.ones(3))]
    with pytest.raises(errors.WorkerLost, match="prepare process"):
        futures[1].result(60)
    for future in (futures[0], futures[2]):
        assert future.result(60)[0][2].tolist() == [3, 3, 3]


class Unprepared(Pixels):
    """Has forgotten to say what `prepare` needs."""

    init_prepare = ManagedModel.init_prepare

    def init_model(self):
        self.factor = 2


def test_a_model_whose_prepare_lacks_something_there_is_told_what_to_do():
    with pytest.raises(errors.NoWorker, match="define `init_prepare`"):
        Streamer(Unprepared, 4, prepare_workers=1, wait_for_worker_ready=True)


def test_fork_is_refused():
    with pytest.raises(ValueError, match="cannot be used with prepare_workers"):
        Streamer(Pixels, 4, prepare_workers=1, mp_start_method="fork")


def test_they_end_with_the_model(streamer):
    pids = {pid for pid, *_ in streamer.predict([np.ones(3)] * 40)}
    streamer.close()
    for pid in pids:
        until(lambda pid=pid: is_gone(pid))


# ------------------------------------------------------------------ handing over


def handed(value):
    here, there = socket.socketpair()
    with here, there:
        sender = threading.Thread(target=handover.send, args=(here, value))
        sender.start()
        got = handover.receive(there)
        sender.join(10)
    return got


def test_large_arrays_and_payloads_arrive_as_views_and_small_ones_as_they_are():
    large = np.arange(handover.LARGE, dtype=np.int64).reshape(-1, 4)
    payload = bytes(handover.LARGE + 3)
    got = handed([large, handover.payload(payload), handover.payload(b"small"), {"a": 1}])
    np.testing.assert_array_equal(got[0], large)
    assert not got[0].flags.owndata
    got[0][0, 0] = 7  # it is the receiver's own
    assert bytes(got[1]) == payload
    assert got[2:] == [b"small", {"a": 1}]


def test_tensors_are_handed_over_like_arrays():
    torch = pytest.importorskip("torch")
    large = torch.arange(handover.LARGE)
    half = torch.ones(3, dtype=torch.bfloat16)
    got, same = handed([large, half])
    assert torch.equal(got, large)
    assert torch.equal(same, half)


def test_after_what_cannot_be_unpickled_the_next_can_come():
    here, there = socket.socketpair()
    with here, there:
        handover.send(here, [np.ones(3), Unpicklable("a", "b")])
        handover.send(here, "next")
        with pytest.raises(handover.Unreadable):
            handover.receive(there)
        assert handover.receive(there) == "next"


def test_an_end_that_is_gone_is_told():
    here, there = socket.socketpair()
    with there:
        here.close()
        with pytest.raises(EOFError):
            handover.receive(there)
