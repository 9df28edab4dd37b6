"""SIGINT and SIGTERM as something that a poll loop can wait for: handlers only enqueue."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from zstreamer.system.exitcodes import ExitCode

STOPPING: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequests:
    """Counts the requests to stop that come as SIGINT or SIGTERM.

    The first asks for a drain, the second for an end at once. Register `fileno()` for reading in
    a poll loop, and look at `requests` when it is ready:

        with StopRequests() as stop:
            poller.register(stop.fileno(), zmq.POLLIN)
            ...
            if stop.requests: ...

    One that is made while another is open knows of the requests that have come to that one, and
    gives the signals back to it.

    Raises ValueError where it is made outside the main thread, since only that takes signals.
    """

    def __init__(self) -> None:
        self._count = 0
        self._seen = 0
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._before: dict[int, Any] = {}
        try:
            for number in STOPPING:
                self._before[number] = before = signal.signal(number, self._enqueue)
                outer = getattr(before, "__self__", None)
                if isinstance(outer, StopRequests):
                    self._count = max(self._count, outer._count)
        except ValueError:
            self._close_pipe()
            raise
        if self._count:
            _quietly(os.write, self._writer, b"\0")

    def fileno(self) -> int:
        """The descriptor that becomes readable with each request; reading `requests` quiets it."""
        return self._reader

    @property
    def requests(self) -> int:
        """How many requests have come since the beginning."""
        if self._count != self._seen:  # asked in every turn of a loop
            self._seen = self._count  # before the pipe, where one that comes now may stay
            _quietly(os.read, self._reader, 4096)
        return self._count

    def close(self) -> None:
        """Put the handlers back that were there before. Closing twice is fine."""
        for number, handler in self._before.items():
            # None: a handler that was not installed from Python cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._before:
            self._before = {}
            self._close_pipe()

    def __enter__(self) -> StopRequests:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enqueue(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1
        _quietly(os.write, self._writer, b"\0")

    def _close_pipe(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def heeded(run: Callable[[], int], *, serving: bool) -> int:
    """Run a whole program, of which no signal at its start or end makes an undocumented exit code.

    Args:
        run: the program; returns its exit code.
        serving: whether it drains when it is asked to stop. If not, a signal interrupts it.
    """
    try:
        if serving:
            with StopRequests():
                code = run()
        else:
            for number in STOPPING:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as in a shell's background job
                    signal.signal(number, signal.default_int_handler)
            code = run()
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    finally:
        for number in STOPPING:  # Python itself would forget its handlers before it has ended
            signal.signal(number, signal.SIG_IGN)
        # Where an exec was interrupted, as of a dataclass, Python would end itself by SIGINT at its
        # exit, though the exception was caught. The next exec has it forget that.
        exec("")  # noqa: S102  # a constant
    return code


def _quietly(action: Callable[..., object], *arguments: object) -> None:
    """Do it unless the pipe is empty (reading) or full of requests already (writing)."""
    try:
        action(*arguments)
    except BlockingIOError:
        return
