"""The client's driver for gevent: no threads, the hub's own loop watches the sockets.

    greenlet ── core.submit, then waits ──┐       once after all greenlets that were ready:
    greenlet ── core.submit, then waits ──┼─ turn what they submitted leaves as one bundle
    descriptor ready, or timer ───────────┘

A plain zmq socket on a watcher of the hub, with EVENTS read again after each send, is all it
takes; see "gevent" in docs/decisions.md for why not zmq.green.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent import getcurrent
from gevent.hub import get_hub

from zstreamer.client.calls import Call, Watch
from zstreamer.client.driver import LoopDriver
from zstreamer.client.future import Future
from zstreamer.client.settings import Settings
from zstreamer.wire import transport

READ = 1

WAKES = 16
"""Greenlets that are woken one after the other before the loop looks at its descriptors again."""


class GreenDriver(LoopDriver):
    """Serves the greenlets of one hub; see `Driver` for the arguments."""

    def __init__(self, settings: Settings) -> None:
        self.hub = get_hub()
        self._loop = self.hub.loop
        super().__init__(settings, self._loop.run_callback)
        # Unreferenced watchers do not keep a program's loop alive; the timer does, and it
        # runs only while calls are open.
        self._timer = self._loop.timer(0.0)
        self._watchers: dict[transport.Connection, list[gevent._interfaces.IWatcher]] = {}
        self._abandoned = False
        self._ended: deque[Call | Watch] = deque()

    def wait(self, call: Call | Watch) -> None:
        """Submit a call and let other greenlets run until it has ended."""
        waiter = call.token = getcurrent()
        self.begin(call)
        self._schedule()
        _waits[waiter] = self, call
        try:
            while not call.done:
                self.hub.switch()
        except BaseException:
            self.cancel(call)
            raise
        finally:
            call.token = None
            del _waits[waiter]

    def submit(self, call: Call) -> Future:
        """Submit a call; return the future of its outputs."""
        future = Future(lambda: self.cancel(call), self.run_apart)
        call.token = future
        self.core.submit(call)
        self._schedule()
        return future

    def start(self, call: Call | Watch, done: Callable[[Call | Watch], None]) -> None:
        """Submit a call; `done` is called in the hub when it has ended, and must not raise."""
        call.token = done
        self.begin(call)
        self._schedule()

    def cancel(self, call: Call | Watch) -> None:
        """Give a call up; from another thread too, since futures are passed around."""
        if get_hub() is self.hub:
            self.core.cancel(call)
            self._schedule()
        else:
            self._loop.run_callback_threadsafe(self.cancel, call)

    def close(self) -> None:
        """End all calls and close the connections; from another thread, when the hub turns."""
        if get_hub() is self.hub:
            self.shut_down()
            self.abandon()
        else:
            self._loop.run_callback_threadsafe(self.close)

    def abandon(self) -> None:
        """Do nothing more, in a fork that must leave its parent's sockets alone."""
        self._abandoned = True
        self._timer.stop()
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.stop()

    def run_apart(self, function: Callable[[], None]) -> None:
        """Run a done-callback in a greenlet, which may block."""
        gevent.spawn(function)

    def complete(self, call: Call | Watch) -> None:
        """Wake the greenlet that waits for it, settle its future, or call back."""
        token = call.token
        if isinstance(token, Future):
            if isinstance(call, Call):
                token.settle(call.results)
        elif callable(token):
            token(call)
        elif token is not None:
            # Not from here: its greenlet may close the client or fork before it switches back.
            if not self._ended:
                self._loop.run_callback(self._wake)
            self._ended.append(call)

    def _wake(self) -> None:
        """Let the greenlets run whose calls have ended, all of a bundle in one callback."""
        ended = self._ended
        for _ in range(min(WAKES, len(ended))):
            waiter: Any = ended.popleft().token
            if waiter is not None:  # it may have gone since: killed, or timed out
                try:
                    waiter.switch()
                except BaseException:  # noqa: BLE001  # what a raw greenlet died of is the hub's
                    self.hub.handle_error(waiter, *sys.exc_info())
        if ended:
            self._loop.run_callback(self._wake)

    def set_timer(self, seconds: float, function: Callable[[], None]) -> None:
        """Have the hub's loop call a function later."""
        self._timer.stop()
        self._timer.close()
        if seconds != math.inf:
            self._timer = self._loop.timer(seconds)
            self._timer.start(function)

    def _turn(self) -> None:
        if not self._abandoned:
            super()._turn()
            if self._timer.active:
                self._timer.ref = bool(self.core.open_calls)

    def watch(self, connection: transport.Connection) -> None:
        """Have the hub's loop watch the connection's descriptors."""
        self._watchers[connection] = [
            self._loop.io(fileno, READ, ref=False) for fileno in connection.filenos()
        ]
        for watcher in self._watchers[connection]:
            watcher.start(self._turn)

    def unwatch(self, connection: transport.Connection) -> None:
        """Have the loop forget them."""
        for watcher in self._watchers.pop(connection):
            watcher.stop()
            watcher.close()


_waits: dict[object, tuple[GreenDriver, Call | Watch]] = {}
"""What each greenlet waits for that waits."""


def give_up(greenlets: Iterable[object]) -> None:
    """End the calls that these greenlets wait for with `Cancelled`; others are left alone.

    Only what waits in `predict` is ended, so that a greenlet is never cut off amid other work.
    """
    for waiter in greenlets:
        found = _waits.get(waiter)
        if found is not None:
            driver, call = found
            driver.cancel(call)
