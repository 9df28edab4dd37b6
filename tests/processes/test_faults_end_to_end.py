"""Models that crash, hang, run out of memory, raise odd things or cannot start, for real."""

import json
import re

import pytest

from tests.helpers.cluster import Cluster
from tests.helpers.waiting import until
from zstreamer import errors
from zstreamer.system.exitcodes import ExitCode

MiB = 2**20


def batches(folder):
    """What `Mortal` has begun, oldest first."""
    return [json.loads(line) for line in (folder / "batches").read_text().splitlines()]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("abort", "was killed by SIGABRT"),
        ("segfault", "was killed by SIGSEGV"),
        ("kill", "was killed by SIGKILL"),  # as by the kernel, when the machine runs out of memory
        ("exit", "ended with exit code 3"),
    ],
)
def test_a_model_that_crashes_amid_a_batch_costs_nobody_an_answer(
    shared, tmp_path, capfd, end, words
):
    crash = [end, 1]
    items = [*range(5), crash, *range(6, 16)]
    settings = {"init_kwargs": {"folder": str(tmp_path)}, "batch_size": 8, "log_level": "warning"}
    with shared.serving("Mortal", **settings) as client:
        assert client.predict(items) == items

    begun = batches(tmp_path)
    assert sum(crash in batch for batch in begun) == 2
    assert len(next(batch for batch in begun if crash in batch)) > 1
    assert capfd.readouterr().err.count(words) == 1


@pytest.mark.parametrize("end", ["kill", "hang"])
def test_an_item_that_kills_its_worker_as_it_arrives_fails_alone(shared, tmp_path, end):
    items = [*range(5), [end], *range(6, 16)]
    settings = {"init_kwargs": {"folder": str(tmp_path)}, "batch_size": 8, "log_level": "error"}
    with shared.serving("Frail", predict_timeout=0.5, **settings) as client:
        answers = client.predict(items, timeout=40, return_exceptions=True)
    assert isinstance(answers.pop(5), errors.WorkerLost)
    assert answers == [item for item in items if item != [end]]


def test_an_item_that_hangs_predict_is_killed_in_time_and_only_its_caller_loses(
    shared, tmp_path, capfd
):
    hang = ["hang", 1000]
    items = [*range(5), hang, *range(6, 16)]
    settings = {"init_kwargs": {"folder": str(tmp_path)}, "batch_size": 8, "log_level": "warning"}
    with shared.serving("Mortal", predict_timeout=0.5, **settings) as client:
        answers = client.predict(items, timeout=40, return_exceptions=True)
        # It is not begun once more, and its worker is as good as before.
        assert client.predict([1, 2, 3]) == [1, 2, 3]

    lost = answers.pop(5)
    assert isinstance(lost, errors.WorkerLost)
    assert "died 2 times while it ran this item alone" in str(lost)
    assert answers == [item for item in items if item != hang]
    suspect = [batch for batch in batches(tmp_path) if hang in batch]
    assert suspect.count([hang]) == 2
    assert [len(batch) for batch in suspect] == [8, 4, 2, 1, 1]
    seconds = re.findall(r"was hung: one predict took (\d+) s", capfd.readouterr().err)
    assert len(seconds) == len(suspect)
    assert all(int(each) < 5 for each in seconds)


def test_with_the_defaults_all_mates_of_an_item_that_hangs_are_answered_in_their_time(
    shared, tmp_path
):
    hang = ["hang", 1000]
    settings = {"init_kwargs": {"folder": str(tmp_path)}, "batch_size": 8, "log_level": "error"}
    with shared.serving("Mortal", **settings) as client:
        for count in (1, 8):
            client.predict(list(range(count)))
        mates = client.submit([*range(3), hang, *range(4, 8)], return_exceptions=True)
        until(lambda: any(hang in batch for batch in batches(tmp_path)))
        behind = client.submit(list(range(100, 108)), timeout=10)
        assert behind.result(15) == list(range(100, 108))  # innocent, and not behind all suspects
        answers = mates.result(25)  # they had 20 s, and nobody had to say so

    lost = answers.pop(3)
    assert isinstance(lost, errors.WorkerLost | errors.DeadlineExceeded)
    assert answers == [*range(3), *range(4, 8)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("CUDA error: device-side assert triggered", "RuntimeError: CUDA error: device-side"),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when …", "CUBLAS_STATUS_EXECUTION_FAILED"),
        ("fatal", "FatalError: the session is gone"),
    ],
)
def test_a_model_whose_device_is_lost_gets_a_new_process_and_only_who_broke_it_loses(
    shared, capfd, error, words
):
    settings = {"init_kwargs": {"error": error}, "batch_size": 8, "log_level": "warning"}
    with shared.serving("Sticky", **settings) as client:
        [before] = client.predict(["good"])
        items = ["good", "good", "poison", *["good"] * 5]
        answers = client.predict(items, timeout=40, return_exceptions=True)
        lost = answers.pop(2)
        assert isinstance(lost, errors.WorkerLost)
        assert words in str(lost)
        assert all(isinstance(pid, int) and pid != before for pid in answers)
        [after] = client.predict(["good"])
        assert after != before
    assert words in capfd.readouterr().err


def test_a_model_that_fails_on_its_own_example_gets_a_new_process(shared, capfd):
    kwargs = {"error": "who knows why", "example": ["good"]}
    with shared.serving("Sticky", init_kwargs=kwargs, log_level="warning") as client:
        [before] = client.predict(["good"])
        with pytest.raises(errors.PredictError, match="who knows why"):
            client.predict(["poison"])
        with pytest.raises(errors.PredictError, match="who knows why"):
            client.predict(["good"])
        [after] = client.predict(["good"])  # the third in a row without an answer
        assert after != before
    assert 'how="was broken: RuntimeError: who knows why"' in capfd.readouterr().err


@pytest.mark.parametrize("wrong", ["raise", "return", "count"])
def test_a_model_that_fails_its_example_is_not_ready(wrong):
    with Cluster(model_grace=60) as cluster:
        worker = cluster.worker("Unfit", boot_attempts=2, init_kwargs={"wrong": wrong})
        words = "returned 0 outputs for 1 input" if wrong == "count" else "unfit for its example"
        with pytest.raises(errors.NoWorker, match=words):
            cluster.client(timeout=30).predict([1])
        assert worker.wait(20) == ExitCode.MODEL


def test_a_batch_that_does_not_fit_into_memory_is_split_and_the_smaller_size_remembered(shared):
    settings = {"init_kwargs": {"piece": 256 * MiB, "fits": 4}, "batch_size": 16}
    with shared.serving("Hungry", **settings) as client:
        # 16 did not fit, nor did 8.
        first = client.predict(list(range(16)))
        assert [size for size, _ in first] == [4] * 16
        failures = first[-1][1]
        assert failures > 0
        # From then on no batch is tried that would not fit …
        for _ in range(5):
            assert client.predict(list(range(16))) == [[4, failures]] * 16
        # … and what fits runs whole.
        assert client.predict([1, 2, 3]) == [[3, failures]] * 3


def test_odd_exceptions_reach_their_callers_and_leave_the_model_alive(shared, capfd):
    with shared.serving("rude", batch_size=8, log_level="warning") as client:
        [pid] = client.predict(["fine"])
        for manner in ("raise", "return"):
            for odd, kind in (("mute", "Mute"), ("surrogate", "ValueError"), ("long", "KeyError")):
                items = ["fine", f"{manner} {odd}", "fine"]
                before, error, after = client.predict(items, return_exceptions=True)
                assert (before, after) == (pid, pid)
                assert isinstance(error, errors.PredictError)
                assert error.type == kind
                assert str(error).startswith(f"{kind}: ")
                assert len(str(error)) < 100_000
        for _ in range(50):
            client.predict(["raise mute"] * 8, return_exceptions=True)

    log = capfd.readouterr().err
    assert 'predict failed type=Mute items=1 last="(no text' in log
    assert 1 <= log.count("type=Mute") <= 5, log


@pytest.mark.parametrize(
    ("end", "words"),
    [(None, "RuntimeError: start number 3 has failed"), ("abort", "was killed by SIGABRT")],
    ids=["raises", "crashes"],
)
def test_a_worker_whose_model_cannot_start_three_times_says_why_and_ends(
    tmp_path, capfd, end, words
):
    settings = {"folder": str(tmp_path), "failures": 1000, "end": end}
    with Cluster(model_grace=60) as cluster:
        worker = cluster.worker("Sickly", boot_attempts=3, init_kwargs=settings)
        with pytest.raises(errors.NoWorker, match=words) as caught:
            cluster.client(timeout=30).predict([1])
        assert worker.wait(20) == ExitCode.MODEL

    assert caught.value.final
    assert len((tmp_path / "starts").read_text().splitlines()) == 3
    log = capfd.readouterr().err
    workers = [line for line in log.splitlines() if " zstreamer.broker " not in line]
    assert sum(words in line for line in workers) == 1
    assert ("Traceback (most recent call last)" in log) == (end is None)


def test_a_model_that_starts_at_the_third_attempt_serves(shared, tmp_path):
    settings = {"folder": str(tmp_path), "failures": 2}
    with shared.serving("Sickly", boot_attempts=3, init_kwargs=settings) as client:
        assert client.predict([1]) == [1]
