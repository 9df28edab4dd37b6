"""SIGINT and SIGTERM as something that a poll loop can wait for: handlers only enqueue."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

STOPPING: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequests:
    """Counts the requests to stop that come as SIGINT or SIGTERM.

    The first asks for a drain, the second for an end at once. Register `fileno()` for reading in
    a poll loop, and look at `requests` when it is ready:

        with StopRequests() as stop:
            poller.register(stop.fileno(), zmq.POLLIN)
            ...
            if stop.requests: ...

    Raises ValueError where it is made outside the main thread, since only that takes signals.
    """

    def __init__(self) -> None:
        self._count = 0
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._before: dict[int, Any] = {}
        try:
            for number in STOPPING:
                self._before[number] = signal.signal(number, self._enqueue)
        except ValueError:
            self._close_pipe()
            raise

    def fileno(self) -> int:
        """The descriptor that becomes readable with each request; reading `requests` quiets it."""
        return self._reader

    @property
    def requests(self) -> int:
        """How many requests have come since the beginning."""
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


def _quietly(action: Callable[..., object], *arguments: object) -> None:
    """Do it unless the pipe is empty (reading) or full of requests already (writing)."""
    try:
        action(*arguments)
    except BlockingIOError:
        return
