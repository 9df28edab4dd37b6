"""A process that is started by another and must not outlive it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import zstreamer
from zstreamer.config import BrokerConfig, WorkerConfig
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.interpreter import import_path, interpreter
from zstreamer.system.process import Process

# Writes what it got into the file named by OUT, then watches its owner as every program does.
CHILD = """
import json, os, select, sys
from zstreamer.config import WorkerConfig
from zstreamer.system.process import read_config

config, owner = read_config(WorkerConfig)
facts = {"config": config.init_kwargs, "pid": os.getpid(), "argv": sys.argv, "path": sys.path}
with open(os.environ["OUT"] + ".part", "w") as out:
    json.dump(facts, out)
os.rename(os.environ["OUT"] + ".part", os.environ["OUT"])
while not owner.gone():
    select.select([owner.fileno()], [], [], 0.5)
"""

# Starts a child, lets a fork of itself hold the pipe, says so, and waits to be killed.
OWNER = """
import os, signal, sys
from zstreamer.config import WorkerConfig
from zstreamer.system.process import Process

child = Process("child", WorkerConfig())
sibling = os.fork() if "fork" in sys.argv else 0
if "fork" in sys.argv and not sibling:
    signal.pause()
print(child.pid, sibling, flush=True)
signal.pause()
"""

# A gevent program that starts a child from its hub and one from a real thread.
GREEN = """
from gevent import monkey
monkey.patch_all()
import gevent, os, sys, time
from gevent.threadpool import ThreadPool
from zstreamer.config import WorkerConfig
from zstreamer.system.process import Process

ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.01)

ticker = gevent.spawn(tick)
big = WorkerConfig(init_kwargs={"text": "x" * 1_000_000})
here = Process("child", big)
there = ThreadPool(1).apply(lambda: Process("child", WorkerConfig()))
while not os.path.exists(os.environ["OUT"]):
    gevent.sleep(0.01)
for child in (here, there):
    child.kill()
    assert child.wait(10) == -9, child
gaps = [after - before for before, after in zip(ticks, ticks[1:])]
assert max(gaps) < 1.0, f"the hub stood still for {max(gaps):.2f} s"
print("fine")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the import path, with the child's module, and where it writes what it got."""
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OUT", str(tmp_path / "facts.json"))
    return tmp_path


def until(condition, seconds=15.0):
    """Wait for something that another process does; there is no event of its to wait for."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return found


def facts(folder):
    path = folder / "facts.json"
    until(path.exists)
    return json.loads(path.read_text())


def is_gone(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@contextlib.contextmanager
def script(folder, text, *arguments):
    path = folder / "script.py"
    path.write_text(text)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(import_path())}
    command = [sys.executable, str(path), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.gevent
def test_child_gets_the_config_and_the_arguments(folder):
    config = WorkerConfig(init_kwargs={"text": "ünï\ncode", "numbers": [1, 2.5, None]})
    with Process("child", config, args=["--more", "x"]) as child:
        got = facts(folder)
    assert got["config"] == config.init_kwargs
    assert got["pid"] == child.pid
    assert got["argv"][-2:] == ["--more", "x"]


def test_config_larger_than_a_pipe_arrives_whole(folder):
    config = WorkerConfig(init_kwargs={"text": "x" * 1_000_000})
    with Process("child", config):
        assert facts(folder)["config"] == config.init_kwargs


@pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="Python 3.10 always puts the current folder on the path of python -m",
)
def test_child_does_not_look_for_modules_in_the_current_folder(folder, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "zstreamer.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(elsewhere)
    with Process("child", WorkerConfig()):
        assert str(elsewhere) not in facts(folder)["path"]


@pytest.mark.gevent
def test_closing_lets_the_child_end_by_itself(folder):
    child = Process("child", WorkerConfig())
    facts(folder)
    child.close()
    assert child.poll() == 0


def test_child_that_ignores_its_owner_is_killed(folder):
    (folder / "deaf.py").write_text("import signal\nwhile True: signal.pause()")
    child = Process("deaf", WorkerConfig())
    child.close()
    assert child.poll() == -signal.SIGKILL


@pytest.mark.gevent
def test_terminate_and_kill_show_in_the_exit_code(folder):
    with Process("child", WorkerConfig()) as child:
        facts(folder)
        assert child.poll() is None
        assert child.wait(0.01) is None
        child.terminate()
        assert child.wait(5) == -signal.SIGTERM
        child.kill()
    assert "exit code -15" in repr(child)


def test_module_that_does_not_exist_ends_with_an_exit_code(folder):
    with Process("no_such_module", WorkerConfig()) as child:
        assert child.wait(10) == 1


def test_exit_code_collected_by_another_is_unknown(folder):
    child = Process("child", WorkerConfig())
    facts(folder)
    child.kill()
    os.waitpid(child.pid, 0)
    assert child.wait(5) == ExitCode.UNKNOWN


def test_ctrl_c_at_the_terminal_does_not_reach_the_child(folder):
    with Process("child", WorkerConfig()) as child:
        assert os.getpgid(child.pid) != os.getpgid(0)


def test_passed_descriptor_is_open_and_env_is_set(folder):
    (folder / "talker.py").write_text(
        "import os, sys\n"
        "os.write(int(sys.argv[-1]), repr((os.environ.get('GIVEN'), 'OUT' in os.environ)).encode())"
    )
    reader, writer = os.pipe()
    environment = {"GIVEN": "yes", "OUT": None}
    arguments = [str(writer)]
    with Process(
        "talker", WorkerConfig(), args=arguments, env=environment, pass_fds=[writer]
    ) as child:
        os.close(writer)
        assert os.read(reader, 100) == b"('yes', False)"
        assert child.wait(5) == 0
    os.close(reader)


def test_child_of_a_short_lived_thread_lives_on(folder):
    made = []
    thread = threading.Thread(target=lambda: made.append(Process("child", WorkerConfig())))
    thread.start()
    thread.join()
    with made[0] as child:
        facts(folder)
        assert child.wait(0.7) is None


def test_process_that_is_garbage_collected_is_let_go_of(folder):
    pid = Process("child", WorkerConfig()).pid
    os.waitpid(pid, 0)


def test_many_threads_may_wait_for_one_child(folder):
    codes = []
    with Process("child", WorkerConfig()) as child:
        facts(folder)
        threads = [threading.Thread(target=lambda: codes.append(child.wait(20))) for _ in range(8)]
        for thread in threads:
            thread.start()
        child.kill()
        for thread in threads:
            thread.join()
    assert codes == [-signal.SIGKILL] * 8


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_child_is_gone_within_two_seconds_of_its_owners_death(folder, how):
    with script(folder, OWNER, how) as owner:
        assert owner.stdout is not None
        pid, sibling = map(int, owner.stdout.readline().split())
        try:
            facts(folder)
            owner.kill()
            until(lambda: is_gone(pid), 2.0)
            assert not sibling or not is_gone(sibling)
        finally:
            if sibling:
                os.kill(sibling, signal.SIGKILL)


def test_fork_of_the_owner_cannot_end_the_child(folder):
    with Process("child", WorkerConfig()) as child:
        facts(folder)
        fork = os.fork()
        if not fork:
            child.kill()
            child.close()
            os._exit(0)
        assert os.waitpid(fork, 0)[1] == 0
        assert child.wait(0.7) is None


def test_owner_under_gevent_starts_children_from_hub_and_thread(folder):
    with script(folder, GREEN) as owner:
        assert owner.communicate(timeout=40)[0] == "fine\n"
        assert owner.returncode == 0


def test_interpreter_is_found_where_a_server_embeds_python(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    found = interpreter()
    assert Path(found).name.startswith("python")
    assert subprocess.run([found, "-c", "import zmq"], check=False).returncode == 0


def test_descriptors_do_not_leak(folder):
    before = psutil.Process().num_fds()
    for _ in range(3):
        Process("no_such_module", BrokerConfig()).close()
    assert psutil.Process().num_fds() == before


def test_owner_is_readable_once_it_is_gone(folder):
    (folder / "watcher.py").write_text(
        "import os, select, sys\n"
        "from zstreamer.config import BrokerConfig\n"
        "from zstreamer.system.process import owned, read_config\n"
        "assert owned()\n"
        "config, owner = read_config(BrokerConfig)\n"
        "assert not owner.gone()\n"
        "os.mkdir(os.environ['OUT'])\n"
        "ready = select.select([owner.fileno()], [], [], 10)[0]\n"
        "sys.exit(0 if ready and owner.gone() and config.port == 5 else 1)"
    )
    child = Process("watcher", BrokerConfig(port=5))
    until((folder / "facts.json").exists)
    child.close()
    assert child.poll() == 0


def test_no_folder_of_the_user_comes_before_the_childs_standard_library(folder, monkeypatch):
    for name in ("broker", "logging", "queue", "dataclasses", "runpy"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(folder)
    with Process("child", WorkerConfig()):
        path = facts(folder)["path"]
    assert "" not in path and str(Path(zstreamer.__file__).parent) not in path
    assert path.index(str(folder)) > path.index(str(Path(os.__file__).parent))
