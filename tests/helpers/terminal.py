"""A terminal in which a program goes on, for following a page."""

import contextlib
import os
import signal
import subprocess
import tempfile

from tests.helpers.document import missing
from tests.helpers.waiting import until

PATIENCE = 60
"""Seconds for a command to end, and for a terminal to show what it is to show."""


def _heed_ctrl_c():
    """A shell has what it starts in the background ignore Ctrl-C, and tests may be started so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Wrong(Exception):
    """The page does not hold."""


class Terminal:
    """A program that goes on, with what it has printed."""

    def __init__(self, command, folder, env):
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_heed_ctrl_c,  # noqa: PLW1509  # it takes no lock
        )

    def printed(self):
        size = self._output.seek(0, os.SEEK_END)
        return os.pread(self._output.fileno(), size, 0).decode()

    def wait_for(self, shown):
        """Wait until all of these lines are there."""
        with contextlib.suppress(AssertionError):
            until(lambda: not missing(shown, self.printed()) or self._ended(), PATIENCE, 0.05)
        if absent := missing(shown, self.printed()):
            raise Wrong(f"{absent} is not in what was printed:\n{self.printed()}")

    def stop(self):
        """Press Ctrl-C, and wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Wrong(f"Ctrl-C does not end it; it printed:\n{self.printed()}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._output.close()

    def _ended(self):
        return self._process.poll() is not None
