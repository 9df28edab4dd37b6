"""A call that waits for the first worker of its model, where a broker would refuse it at once."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable

from zstreamer.client.future import Future
from zstreamer.errors import ModelNotFound, ZStreamerError


class Again:
    """Runs functions a little later, all that wait together.

    Args:
        pause: seconds.
    """

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []

    def put(self, function: Callable[[], None]) -> None:
        """Run a function after the pause, or sooner with others; it must not raise."""
        with self._lock:
            self._waiting.append(function)
            first = len(self._waiting) == 1
        if first:
            timer = threading.Timer(self.pause, self._run)
            timer.daemon = True
            timer.start()

    def _run(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for function in waiting:
            function()


class PatientCall:
    """Submits a call until a worker of its model has come, within the call's time.

    Args:
        submit: makes the call, given the seconds that it has.
        timeout: seconds, None for the usual ones.
        usual: the seconds of a call that has none of its own.
        again: has the call made again later.

    Attributes:
        future: of the call's outputs.
    """

    def __init__(
        self,
        submit: Callable[[float | None], Future],
        timeout: float | None,
        usual: float,
        again: Again,
    ) -> None:
        self._submit = submit
        self._end = time.monotonic() + (usual if timeout is None else timeout)
        self._again = again
        self.future = Future(self._cancel, lambda callback: callback())
        self._call = submit(timeout)
        self._call.add_done_callback(self._ended)

    def _cancel(self) -> None:
        self._call.cancel()

    def _ended(self, call: concurrent.futures.Future[list[object]]) -> None:
        if call.cancelled():
            return
        late = time.monotonic() + self._again.pause >= self._end
        if late or not isinstance(call.exception(), ModelNotFound):
            self.future.settle(call.result)
        elif not self.future.done():
            self._again.put(self._try)

    def _try(self) -> None:
        if self.future.done():
            return
        try:
            call = self._submit(max(self._again.pause, self._end - time.monotonic()))
        except ZStreamerError as error:  # the client is closed
            call = Future(lambda: None, lambda callback: callback())
            call.set_exception(error)
        self._call = call
        call.add_done_callback(self._ended)
