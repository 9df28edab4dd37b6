"""Requests to stop, as something that a poll loop waits for."""

import os
import select
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.signals import StopRequests


def is_ready(stop, seconds=0.0):
    return bool(select.select([stop], [], [], seconds)[0])


def test_signals_wake_a_poll_loop_and_are_counted():
    with StopRequests() as stop:
        assert not is_ready(stop)
        os.kill(os.getpid(), signal.SIGTERM)
        assert is_ready(stop, 5)
        assert stop.requests == 1
        assert not is_ready(stop)
        os.kill(os.getpid(), signal.SIGINT)
        assert is_ready(stop, 5)
        assert stop.requests == 2


def test_storm_of_signals_neither_blocks_nor_raises():
    with StopRequests() as stop:
        for _ in range(70_000):
            stop._enqueue(signal.SIGTERM, None)
        assert stop.requests == 70_000


def test_handlers_from_before_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop = StopRequests()
    assert signal.getsignal(signal.SIGTERM) != before[1]
    stop.close()
    stop.close()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_are_refused_and_leave_nothing_open():
    refused = []

    def make():
        with pytest.raises(ValueError, match="main thread") as error:
            StopRequests()
        refused.append(error)

    before = psutil.Process().num_fds()
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert refused
    assert psutil.Process().num_fds() == before


def test_an_interrupt_amid_an_exec_has_the_documented_exit_code_too(tmp_path):
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "from zstreamer.system.signals import heeded\n"
        "sys.exit(heeded(lambda: exec('raise KeyboardInterrupt'), serving=False))\n"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "program"]  # where Python looks at its own note of it
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, timeout=30, check=False)
    assert done.returncode == ExitCode.INTERRUPTED
