"""The client's driver for plain threads: one I/O thread owns the sockets.

caller thread ── deque, then one byte down a pipe ──> I/O thread ──> future or lock ──> caller
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import zmq

from zstreamer import errors
from zstreamer.client.calls import Call, Watch
from zstreamer.client.driver import Driver
from zstreamer.client.future import Future
from zstreamer.client.settings import Settings
from zstreamer.system import native
from zstreamer.system.waiter import ThreadWaiter
from zstreamer.wire import transport

log = logging.getLogger(__name__)

LATE = 5.0
"""Seconds after its deadline at which a caller gives up on an I/O thread that does not answer."""


class ThreadsDriver(Driver):
    """Serves the threads of one process; see `Driver` for the arguments."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._inbox: deque[Callable[[], None]] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._awake = False
        self._closing = False
        self._ended = False
        self._gate = native.lock()  # between posting a command and the thread's end
        self._callbacks: deque[Callable[[], None]] = deque()
        self._callback_lock = native.lock()
        self._callback_thread = False
        self._poller = zmq.Poller()
        self._poller.register(self._reader, zmq.POLLIN)
        self._stopped = ThreadWaiter()
        native.start_thread(self._run)

    # In the callers' threads

    def wait(self, call: Call | Watch) -> None:
        """Submit a call and block until it has ended."""
        waiter = call.token = ThreadWaiter()
        self._require(self._post(lambda: self.begin(call)))
        try:
            if not waiter.wait(max(0.0, call.deadline - time.monotonic()) + LATE):
                raise errors.DeadlineExceeded(
                    "the client's I/O thread did not end the call in time: this process is "
                    "short of CPU, or was stopped; give the call more time"
                )
        except BaseException:
            self.cancel(call)
            raise

    def submit(self, call: Call) -> Future:
        """Submit a call; return the future of its outputs."""
        future = Future(lambda: self.cancel(call), self.run_apart)
        call.token = future
        self._require(self._post(lambda: self.begin(call)))
        return future

    def start(self, call: Call | Watch, done: Callable[[Call | Watch], None]) -> None:
        """Submit a call; `done` is called in the I/O thread at its end, and must not raise."""
        call.token = done
        self._require(self._post(lambda: self.begin(call)))

    def cancel(self, call: Call | Watch) -> None:
        """Give a call up."""
        self._post(lambda: self.core.cancel(call))

    def close(self) -> None:
        """End all calls and close the connections; returns when that is done."""
        if not self._closing:
            self._closing = True
            self._wake()
            self._stopped.wait(LATE)

    def abandon(self) -> None:
        """Do nothing: in a fork the I/O thread does not exist, and the sockets are the parent's."""

    def run_apart(self, function: Callable[[], None]) -> None:
        """Run a done-callback in a thread that may block."""
        with self._callback_lock:
            self._callbacks.append(function)
            if not self._callback_thread:
                self._callback_thread = True
                native.start_thread(self._run_callbacks)

    def _post(self, command: Callable[[], None]) -> bool:
        """Have the I/O thread do something; False where it has ended."""
        with self._gate:
            if self._ended:
                return False
            self._inbox.append(command)
        if not self._awake:
            self._wake()
        return True

    def _wake(self) -> None:
        self._awake = True
        with self._gate, suppress(BlockingIOError):  # full of bytes that will wake it
            if not self._ended:
                os.write(self._writer, b"\0")

    @staticmethod
    def _require(posted: bool) -> None:
        if not posted:
            raise errors.Cancelled("the client is closed")

    # In the I/O thread

    def _run(self) -> None:
        try:
            wake_at = 0.0
            while not self._closing:
                wait = min(wake_at - time.monotonic(), 3600.0)
                self._poller.poll(max(0, math.ceil(wait * 1000)))
                self._read_inbox()
                wake_at = self.turn()
        except BaseException:
            log.exception("the client's I/O thread failed")
            raise
        finally:
            self._closing = True
            with self._gate:
                self._ended = True
            self._read_inbox()
            self.shut_down()
            os.close(self._reader)
            os.close(self._writer)
            self._stopped.wake()

    def _read_inbox(self) -> None:
        if self._awake:
            with suppress(BlockingIOError):  # set, but not yet written
                os.read(self._reader, 4096)
            self._awake = False
        while self._inbox:
            self._inbox.popleft()()

    def complete(self, call: Call | Watch) -> None:
        """Wake the thread that waits for it, settle its future, or call back."""
        token = call.token
        if isinstance(token, ThreadWaiter):
            token.wake()
        elif isinstance(token, Future) and isinstance(call, Call):
            token.settle(call.results)
        elif callable(token):
            token(call)

    def watch(self, connection: transport.Connection) -> None:
        """Have the poller watch the connection's sockets."""
        connection.register(self._poller)

    def unwatch(self, connection: transport.Connection) -> None:
        """Have the poller forget them."""
        connection.unregister(self._poller)

    # In the callbacks' thread

    def _run_callbacks(self) -> None:
        while True:
            with self._callback_lock:
                if not self._callbacks:
                    self._callback_thread = False
                    return
                function = self._callbacks.popleft()
            function()
