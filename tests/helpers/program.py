"""Programs of their own, for tests that patch, fork or kill the program they are about."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _command(folder, text, arguments):
    path = Path(folder, "program.py")
    path.write_text(text)
    return [sys.executable, str(path), *map(str, arguments)]


def _environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def _heed_ctrl_c():
    """What a shell runs in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(folder, text, *arguments):
    """Run a program to its end; gives its exit code and what it printed."""
    return subprocess.run(
        _command(folder, text, arguments),
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def succeed(folder, text, *arguments):
    """Run a program that prints "fine" at its end."""
    done = finish(folder, text, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1:] == ["fine"], done.stdout + done.stderr


@contextlib.contextmanager
def running(folder, text, *arguments):
    """A program that runs as long as the block, if not killed before; its output can be read."""
    command = _command(folder, text, arguments)
    with subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_ctrl_c,  # noqa: PLW1509  # it takes no lock
    ) as process:
        try:
            yield process
        finally:
            process.kill()
