"""`Streamer`: a private broker and workers, which end with the program that holds it."""

import asyncio
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures

import numpy as np
import psutil
import pytest

from tests.helpers import models
from tests.helpers.closed_loop import settled
from tests.helpers.cluster import Gated
from tests.helpers.program import ROOT, finish, running, succeed
from tests.helpers.waiting import all_gone, descendants, is_gone, until
from zstreamer import Streamer, errors
from zstreamer.client.status import fetch


@pytest.fixture(scope="module")
def streamer():
    """A streamer that tests share which only call it."""
    with Streamer(models.double, 16, wait_for_worker_ready=True) as streamer:
        yield streamer


def test_its_arguments_are_those_of_the_older_library_in_the_same_order():
    parameters = inspect.signature(Streamer).parameters.values()
    assert [(p.name, p.default) for p in parameters][:10] == [  # its own come after them
        ("predict_function_or_model", inspect.Parameter.empty),
        ("batch_size", inspect.Parameter.empty),
        ("max_latency", 0.1),
        ("worker_num", 1),
        ("cuda_devices", None),
        ("model_init_args", None),
        ("model_init_kwargs", None),
        ("wait_for_worker_ready", False),
        ("mp_start_method", "spawn"),
        ("worker_timeout", 20),
    ]


@pytest.mark.gevent
def test_predict_answers_in_order_whatever_the_batches_are(streamer):
    assert streamer.predict([1, 2, 3]) == [2, 4, 6]
    assert streamer.predict(list(range(1000))) == [2 * i for i in range(1000)]
    assert streamer.predict([]) == []


@pytest.mark.gevent
def test_submit_gives_a_future(streamer):
    future = streamer.submit([1, 2])
    assert future.result(timeout=10) == [2, 4]
    assert future.done() is True


@pytest.mark.gevent
def test_a_lone_item_in_place_of_a_list_is_refused_with_the_fix(streamer):
    with pytest.raises(TypeError, match=r"wrap it: \[item\]"):
        streamer.predict("text")
    with pytest.raises(TypeError, match=r"wrap it: \[item\]"):
        streamer.submit("text")


@pytest.mark.gevent
def test_an_exception_in_predict_does_not_kill_the_worker():
    with Streamer(models.picky, 8) as streamer:
        good = [streamer.submit([i]) for i in range(10)]
        with pytest.raises(errors.PredictError, match="the model met boom") as caught:
            streamer.predict(["fine", "boom"])
        assert (caught.value.index, caught.value.type) == (1, "ValueError")
        assert [f.result(10) for f in good] == [[i] for i in range(10)]
        assert streamer.predict(["after"]) == ["after"]


def test_a_killed_model_process_is_replaced_and_its_callers_see_no_error():
    with Streamer(models.pids, 1) as streamer:
        [before] = streamer.predict([1])
        os.kill(before, signal.SIGKILL)
        [after] = streamer.predict([1])
    assert before != after


@pytest.mark.asyncio
async def test_batches_fill_under_asyncio():
    with Streamer(models.batch_sizes, 8, wait_for_worker_ready=True) as streamer:
        futures = [asyncio.wrap_future(streamer.submit([i])) for i in range(64)]
        sizes = [size for [size] in await asyncio.gather(*futures)]
    assert max(sizes) == 8


@pytest.mark.gevent
def test_callers_who_return_share_a_batch():
    with Streamer(models.slow_batch_sizes, 64, wait_for_worker_ready=True) as streamer:
        assert settled(streamer.predict, 8, low=7, high=8)


def test_greedy_batches_keep_two_halves_of_the_callers_apart():
    """In threads: greenlets that are answered together also ask again together."""
    settings = {"max_latency": 0, "wait_for_worker_ready": True}
    with Streamer(models.slow_batch_sizes, 64, **settings) as streamer:
        assert settled(streamer.predict, 8, low=3, high=5)


@pytest.mark.gevent
def test_a_lone_caller_does_not_pay_max_latency():
    with Streamer(models.double, 64, max_latency=0.5, wait_for_worker_ready=True) as streamer:
        start = time.monotonic()
        for i in range(20):
            assert streamer.predict([i]) == [2 * i]
    assert time.monotonic() - start < 20 * 0.5 / 4


@pytest.mark.gevent
def test_threads_share_batches_and_each_gets_its_own(streamer):
    answers = {}
    threads = [
        threading.Thread(target=lambda i=i: answers.update({i: streamer.predict([i])}))
        for i in range(200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {i: [2 * i] for i in range(200)}


def test_devices_are_dealt_out_in_turn_and_seen_before_the_model_is_imported(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with Streamer(
        models.Device,
        1,
        worker_num=4,
        cuda_devices=(0, 3),
        model_init_args=["a"],
        model_init_kwargs={"b": {"c": (1, 2)}},
    ) as streamer:
        seen = {}
        while len(seen) < 4:
            for fact in streamer.predict([None] * 16):
                seen[fact["pid"]] = fact
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert sorted(fact["at import"] for fact in seen.values()) == ["0", "0", "3", "3"]
    for fact in seen.values():
        assert fact["gpu_id"] == int(fact["at import"])
        assert fact["arguments"] == [["a"], {"b": {"c": (1, 2)}}]
        assert not fact["torch"]


def test_without_devices_the_model_sees_what_its_program_sees(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with Streamer(models.Device, 1) as streamer:
        [fact] = streamer.predict([None])
    assert (fact["at import"], fact["gpu_id"]) == ("7", None)


# Errors that say what to do


@pytest.mark.parametrize(
    "model", [lambda batch: batch, threading.Lock().acquire, type("Local", (), {"predict": len})]
)
def test_a_model_that_cannot_be_pickled_is_refused_with_the_fix(model):
    before = descendants(os.getpid())
    with pytest.raises(TypeError, match=r"top of a module.*ThreadedStreamer"):
        Streamer(model, 4)
    assert descendants(os.getpid()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"worker_num": 0}, "num"),
        ({"max_latency": -1}, "max_latency"),
        ({"worker_timeout": 0}, "timeout"),
        ({"mp_start_method": "threads"}, "spawn"),
        ({"mp_start_method": "fork", "batch_size": 0}, "batch_size"),
        ({"mp_start_method": "fork", "worker_timeout": 0}, "timeout"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_and_leave_nothing(arguments, words):
    before = descendants(os.getpid())
    with pytest.raises(ValueError, match=words):
        Streamer(**{"predict_function_or_model": models.double, "batch_size": 4, **arguments})
    assert all_gone(set(descendants(os.getpid())) - set(before))


@pytest.mark.parametrize("devices", ["-1", "0,1", [-1], [0.5], [True], [None], 0, ["cuda:0"], [""]])
def test_devices_that_mean_nothing_are_refused(devices):
    with pytest.raises(ValueError, match="cuda_devices"):
        Streamer(models.double, 4, cuda_devices=devices)


@pytest.mark.parametrize(
    ("devices", "gpu_id"),
    [
        (np.array([3]), 3),
        ([np.int64(3)], 3),
        (["3"], "3"),
        (["GPU-8932f937-d72c"], "GPU-8932f937-d72c"),
    ],
)
def test_a_device_keeps_its_type_as_gpu_id(devices, gpu_id):
    with Streamer(models.Device, 1, cuda_devices=devices) as streamer:
        [fact] = streamer.predict([None])
    assert (fact["at import"], fact["gpu_id"]) == (str(gpu_id), gpu_id)


def test_programs_of_the_older_library_wait_for_a_worker_by_its_name():
    with Streamer(models.Sleeper, 4, model_init_args=[0.0]) as streamer:
        streamer._wait_for_worker_ready(timeout=30)
        begin = time.monotonic()
        streamer._wait_for_worker_ready()
        assert time.monotonic() - begin < 5
    with Streamer(models.Broken, 4) as streamer, pytest.raises(errors.NoWorker):
        streamer._wait_for_worker_ready(30)


@pytest.mark.gevent
def test_a_call_has_its_own_timeout_priority_and_place_for_errors(streamer):
    outcomes = streamer.predict([1, {}, 3], return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == (2, 6)
    assert (type(outcomes[1]), outcomes[1].index) == (errors.PredictError, 1)
    assert streamer.submit([1], timeout=10, priority=5).result(10) == [2]
    for bad in ({"timeout": 0}, {"timeout": "soon"}):
        with pytest.raises(ValueError, match="timeout"):
            streamer.predict([1], **bad)


def test_a_call_ends_when_its_own_timeout_says_so():
    with Streamer(models.Sleeper, 1, model_init_args=[2.0], wait_for_worker_ready=True) as streamer:
        begin = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded):
            streamer.predict([1], timeout=0.3)
        assert time.monotonic() - begin < 1.9


@pytest.mark.gevent
def test_a_model_that_cannot_start_is_an_error_with_its_traceback():
    with pytest.raises(errors.NoWorker, match=r"(?s)init_model.*the weights are missing"):
        Streamer(models.Broken, 4, wait_for_worker_ready=True)
    with Streamer(models.Broken, 4) as streamer:
        start = time.monotonic()
        with pytest.raises(errors.NoWorker, match="the weights are missing"):
            streamer.predict([1])
        assert time.monotonic() - start < 15
        with pytest.raises(errors.NoWorker, match="the weights are missing"):
            streamer.predict([1])


UNGUARDED = """
from zstreamer import Streamer

def double(batch):
    return [2 * item for item in batch]

streamer = Streamer(double, 8)
print(streamer.predict([1]))
"""


def test_an_unguarded_main_module_gets_an_error_that_says_what_to_do(tmp_path):
    done = finish(tmp_path, UNGUARDED)
    assert done.returncode == 1
    assert "if __name__" in done.stderr
    assert "NoWorker" in done.stderr


GUARDED = """
from dataclasses import dataclass
from zstreamer import ManagedModel, Streamer

print("imported")

@dataclass
class Factor:
    value: int

class Multiplier(ManagedModel):
    def init_model(self, factor):
        self.factor = factor.value

    def predict(self, batch):
        return [self.factor * item for item in batch]

def double(batch):
    return [2 * item for item in batch]

if __name__ == "__main__":
    with Streamer(double, 8) as streamer:
        assert streamer.predict([1, 2]) == [2, 4]
    with Streamer(Multiplier, 8, model_init_args=[Factor(3)]) as streamer:
        assert streamer.predict([1, 2]) == [3, 6]
    print("fine")
"""


def test_a_model_of_a_guarded_main_module_works(tmp_path):
    succeed(tmp_path, GUARDED)


UNTOUCHED = """
import math
from zstreamer import Streamer
print("imported")
with Streamer(math.fsum, 8) as streamer:
    pass
print("fine")
"""


def test_the_main_module_is_not_imported_where_the_model_lives_elsewhere(tmp_path):
    done = finish(tmp_path, UNTOUCHED)
    assert done.stdout.split() == ["imported", "fine"], done.stderr


FORKED = """
import os
from zstreamer import Streamer

secret = object()
seen = []

def tell(batch):
    return [[item, id(secret), os.getpid()] for item in batch]

streamer = Streamer(lambda batch: tell(batch), 8, worker_num=2, mp_start_method="fork")
[[item, found, pid]] = streamer.predict([5])
assert (item, found) == (5, id(secret)) and pid != os.getpid()
os.kill(pid, 9)
[[item, found, again]] = streamer.predict([6])
assert (item, found) == (6, id(secret)) and again not in (pid, os.getpid())
streamer.destroy_workers()
print("fine")
"""


def test_with_fork_a_model_may_be_anything_that_the_program_holds(tmp_path):
    succeed(tmp_path, FORKED)


# Ends


def test_destroy_workers_ends_all_processes_and_hung_calls():
    before = set(descendants(os.getpid()))
    streamer = Streamer(
        models.Sleeper, 1, worker_num=2, model_init_kwargs={"seconds": 30}, worker_timeout=2
    )
    streamer._client.wait_ready(30)
    # Broker, supervisor, 2 agents and 2 models, of which the second may come later.
    until(lambda: len(set(descendants(os.getpid())) - before) == 6)
    started = set(descendants(os.getpid())) - before
    future = streamer.submit([1], timeout=60)
    with pytest.raises(futures.TimeoutError):
        future.result(0.2)
    begin = time.monotonic()
    streamer.destroy_workers()
    assert time.monotonic() - begin < 10
    assert all(map(is_gone, started))
    assert isinstance(future.exception(5), errors.Cancelled)
    for call in (streamer.predict, streamer.submit):
        with pytest.raises(errors.Cancelled, match="the streamer is closed"):
            call([1])
    streamer.destroy_workers()


def worker_state(streamer):
    """What the streamer's private broker says of its only worker."""
    [address] = streamer._client.addresses
    [worker] = fetch(address)["models"]["default"]["workers"]
    return worker["state"]


@pytest.mark.gevent
def test_destroy_workers_lets_the_running_batch_end_and_its_callers_have_their_answers(tmp_path):
    gated = Gated(tmp_path)
    streamer = Streamer(models.Gate, 1, model_init_args=[str(tmp_path)], wait_for_worker_ready=True)
    running = streamer.submit(["running"])
    gated.wait_begun("running")
    waiting = [streamer.submit([f"waiting {i}"]) for i in range(9)]
    ending = threading.Thread(target=streamer.destroy_workers)
    ending.start()
    with pytest.raises(errors.Cancelled):
        until(lambda: streamer.predict(["too late"]))
    until(lambda: worker_state(streamer) == "draining")
    gated.open()
    ending.join()
    assert running.result(0)[0][0] == "running"
    assert isinstance(waiting[-1].exception(0), errors.Cancelled)
    assert "waiting 8" not in gated.begun


def test_a_streamer_that_is_forgotten_ends_its_processes():
    before = set(descendants(os.getpid()))
    streamer = Streamer(models.double, 4, wait_for_worker_ready=True)
    started = set(descendants(os.getpid())) - before
    del streamer
    assert all_gone(started)


def test_a_program_that_forgets_to_destroy_it_ends_by_itself(tmp_path):
    text = "from tests.helpers import models\nfrom zstreamer import Streamer\n"
    text += "streamer = Streamer(models.double, 4)\nprint(streamer.predict([1]))\nprint('fine')\n"
    succeed(tmp_path, text)


HOLDER = """
import os, signal, sys
from tests.helpers import models
from zstreamer import Streamer

if __name__ == "__main__":
    if "gevent" in sys.argv:
        from gevent import monkey
        monkey.patch_all()
    method = "fork" if "fork" in sys.argv else "spawn"
    streamer = Streamer(
        models.Sleeper, 4, worker_num=2, model_init_args=[0.01], mp_start_method=method
    )
    streamer.predict([1] * 20)
    if "busy" in sys.argv:
        busy = Streamer(models.Sleeper, 4, model_init_args=[1000], mp_start_method=method)
        future = busy.submit([1])
        busy._client.wait_ready(30)
    sibling = os.fork() if "sibling" in sys.argv else 0
    if "sibling" in sys.argv and not sibling:
        signal.pause()
    print(sibling, flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("how", ["spawn", "fork", "gevent", "spawn sibling", "fork sibling busy"])
def test_killing_the_program_that_holds_it_leaves_no_process(tmp_path, how):
    with running(tmp_path, HOLDER, *how.split()) as program:
        sibling = int(program.stdout.readline())
        try:
            until(lambda: len(descendants(program.pid)) >= 6 + bool(sibling))
            started = [pid for pid in descendants(program.pid) if pid != sibling]
            program.kill()
            program.wait()
            assert all_gone(started, 5.0), [p for p in started if not is_gone(p)]
        finally:
            if sibling:
                assert psutil.pid_exists(sibling)
                os.kill(sibling, signal.SIGKILL)


def test_ctrl_c_at_the_terminal_leaves_no_process(tmp_path):
    with running(tmp_path, HOLDER, "spawn") as program:
        program.stdout.readline()
        started = descendants(program.pid)
        program.send_signal(signal.SIGINT)
        program.wait(10)
        assert all_gone(started)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder of its own for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_the_folder_of_a_streamer_is_gone_once_it_is_closed(temporary):
    for method in ("spawn", "fork"):
        with Streamer(models.double, 4, mp_start_method=method) as streamer:
            assert streamer.predict([1]) == [2]
            assert len(list(temporary.iterdir())) == 1
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_a_program_that_a_signal_ends_leaves_no_folder(tmp_path, temporary, number, how):
    with running(tmp_path, HOLDER, how) as program:
        program.stdout.readline()
        assert len(list(temporary.iterdir())) == 1
        program.send_signal(number)
        program.wait(10)
        until(lambda: not list(temporary.iterdir()), 10)


def test_temporary_files_may_be_in_a_folder_of_a_long_or_odd_name(temporary, monkeypatch):
    for name in ("deep" * 30, "with, comma and ünï"):
        folder = temporary / name
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with Streamer(models.double, 4) as streamer:
            assert streamer.predict([1]) == [2]


def test_where_no_folder_has_room_for_a_socket_that_is_said(temporary, monkeypatch):
    monkeypatch.setattr("zstreamer.local.folder.SHORT_PLACES", ())
    folder = temporary / ("deep" * 30)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(ValueError, match="set TMPDIR to a folder with a short path"):
        Streamer(models.double, 4)
    assert list(folder.iterdir()) == []


NOWHERE = """
from zstreamer import ManagedModel, Streamer

class Model(ManagedModel):
    def predict(self, batch):
        return batch

def run(batch):
    return batch

class Held:
    pass

for arguments in ([run], [Model], [len, [Held()]]):
    try:
        Streamer(arguments[0], 8, model_init_args=arguments[1:])
    except TypeError as error:
        print("refused:", error)
with Streamer(run, 8, mp_start_method="fork") as streamer:
    assert streamer.predict([1]) == [1]
with Streamer(len, 8) as streamer:
    pass
print("fine")
"""


@pytest.mark.parametrize(
    "place", ["python -c", "standard input", "python -m", "zip file", "notebook"]
)
def test_a_model_that_no_process_can_import_is_refused_at_once(tmp_path, place):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__main__.py").write_text(NOWHERE)
    (package / "__init__.py").touch()
    notebook = "import sys, types\nmain = sys.modules['__main__'] = types.ModuleType('__main__')\n"
    notebook += f"main.get_ipython = None\nexec({NOWHERE!r}, vars(main))"
    arguments, given, words = {
        "python -c": (["-c", NOWHERE], None, "`python -c`"),
        "standard input": (["-"], NOWHERE, "what Python reads from|an interactive session"),
        "python -m": (["-m", "package"], None, r"run as python -m package"),
        "zip file": (["package.zip"], None, "a folder or zip file"),
        "notebook": (["-c", notebook], None, "a notebook"),
    }[place]
    shutil.make_archive(str(package), "zip", package)
    done = subprocess.run(
        [sys.executable, *arguments],
        input=given or "",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stdout.split()[-1:] == ["fine"], done.stderr
    refused = [line for line in done.stdout.splitlines() if line.startswith("refused: ")]
    assert len(refused) == 3, done.stdout
    for line in refused:
        assert re.search(words, line)
        assert "Put it into a module" in line
        assert 'mp_start_method="fork"' in line


@pytest.mark.gevent
def test_one_made_in_a_thread_outlives_that_thread():
    made = []
    thread = threading.Thread(
        target=lambda: made.append(Streamer(models.double, 4, wait_for_worker_ready=True))
    )
    thread.start()
    thread.join()
    with made[0] as streamer:
        before = descendants(os.getpid())
        for i in range(15):
            assert streamer.predict([i]) == [2 * i]
            time.sleep(0.1)  # longer than the second after which a lost owner is noticed
        assert descendants(os.getpid()) == before


HUB = """
from gevent import monkey
monkey.patch_all()
import gevent, time
from tests.helpers import models
from zstreamer import Streamer

if __name__ == "__main__":
    gaps, before = [], time.monotonic()
    def tick():
        global before
        while True:
            gevent.sleep(0.01)
            now = time.monotonic()
            gaps.append(now - before)
            before = now

    with Streamer(models.Sleeper, 8, model_init_args=[0.3], wait_for_worker_ready=True) as streamer:
        before = time.monotonic()
        ticker = gevent.spawn(tick)
        jobs = [gevent.spawn(streamer.predict, [i]) for i in range(9)]
        future = streamer.submit([1, 2])
        gevent.joinall(jobs)
        assert [job.value for job in jobs] == [[i] for i in range(9)]
        assert future.result(10) == [1, 2]
        assert len(gaps) > 20 and max(gaps) < 0.25, max(gaps)
    with Streamer(models.batch_sizes, 8, wait_for_worker_ready=True) as streamer:
        jobs = [gevent.spawn(streamer.predict, [i]) for i in range(64)]
        gevent.joinall(jobs)
        assert max(job.value[0] for job in jobs) == 8
    print("fine")
"""


def test_under_gevent_the_hub_keeps_turning_while_the_model_computes(tmp_path):
    succeed(tmp_path, HUB)


CHILD = """
import os, signal
from tests.helpers import models
from zstreamer import Streamer

if __name__ == "__main__":
    with Streamer(models.double, 8) as streamer:
        assert streamer.predict([1]) == [2]
        child = os.fork()
        if not child:
            signal.alarm(20)
            good = streamer.predict([2]) == [4]
            streamer.destroy_workers()
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert streamer.predict([3]) == [6]
    print("fine")
"""


def test_a_forked_child_may_call_and_close_it_and_the_parent_goes_on(tmp_path):
    succeed(tmp_path, CHILD)
