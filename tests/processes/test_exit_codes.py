"""Exit codes under signals that come while a program starts or ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.helpers.cluster import free_port
from tests.helpers.program import ROOT
from zstreamer.system.exitcodes import ExitCode, of_child

COMMANDS = {
    "broker": ["broker", "--http-port", "0"],
    "worker": ["worker", "tests.helpers.models:double"],
    "up": ["up", "tests.helpers.models:double", "--http-port", "0"],
    "gateway": ["gateway"],
    "call": ["call", "x", "--timeout", "30", "--connect-timeout", "30"],
    "status": ["status", "--connect-timeout", "30"],
}
PORTS = {
    "broker": ["--port", "--worker-port"],
    "up": ["--port", "--worker-port"],
    "gateway": ["--port"],
}


@contextlib.contextmanager
def started(name, *options):
    """A command that has just begun; gives its process and what it prints on standard error."""
    ports = [word for flag in PORTS.get(name, []) for word in (flag, str(free_port()))]
    with subprocess.Popen(
        [sys.executable, *options, "-m", "zstreamer", *COMMANDS[name], *ports],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ended(process):
    """The exit code; what it prints is read meanwhile."""
    _, printed = process.communicate(timeout=40)
    return process.returncode, printed


def expected(name):
    return ExitCode.OK if name in ("broker", "worker", "up", "gateway") else ExitCode.INTERRUPTED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_during_the_start_has_a_documented_exit_code(name, number):
    with started(name, "-X", "importtime") as process:
        for line in process.stderr:
            if line.rstrip().endswith("rich_click.rich_help_configuration"):
                break  # amid the imports
        process.send_signal(number)
        code, printed = ended(process)
    assert code == expected(name), printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("name", ["broker", "worker", "up", "gateway"])
def test_signals_without_end_have_a_documented_exit_code(name):
    with started(name) as process:
        for line in process.stderr:
            if any(words in line for words in ("serving", "no answer yet", "ready", "started")):
                break
        reading = threading.Thread(target=process.stderr.read)
        reading.start()
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
        reading.join(10)
    assert process.returncode in (ExitCode.OK, ExitCode.NOT_DRAINED)


def test_a_childs_signal_is_told_as_a_documented_code():
    assert of_child(4) == ExitCode.MODEL
    assert of_child(-9) == of_child(-9, stopped=True) == of_child(-15) == ExitCode.FAILED
    assert of_child(-15, stopped=True) == of_child(-2, stopped=True) == ExitCode.OK
