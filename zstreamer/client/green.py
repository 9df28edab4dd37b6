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
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
from gevent import getcurrent
from gevent.hub import get_hub

from zstreamer.client.calls import Call, Watch
from zstreamer.client.driver import Driver
from zstreamer.client.future import Future
from zstreamer.client.link import Link
from zstreamer.client.threads import settle
from zstreamer.wire import transport

READ = 1

WAKES = 16
"""Greenlets that are woken one after the other before the loop looks at its descriptors again."""

SWEEP = 1.0
"""Seconds between two looks at the sockets while calls are open, should an edge be missed."""


class GreenDriver(Driver):
    """Serves the greenlets of one hub; see `Driver` for the arguments."""

    def __init__(
        self, addresses: Sequence[str], connect_timeout: float, options: transport.Options
    ) -> None:
        super().__init__(addresses, connect_timeout, options)
        self.hub = get_hub()
        self._loop = self.hub.loop
        # Unreferenced watchers do not keep a program's loop alive; the timer does, and it
        # runs only while calls are open.
        self._timer = self._loop.timer(0.0)
        self._timer_at = 0.0
        self._watchers: dict[Link, list[gevent._interfaces.IWatcher]] = {}
        self._scheduled = False
        self._abandoned = False
        self._ended: deque[Call | Watch] = deque()

    def wait(self, call: Call | Watch) -> None:
        """Submit a call and let other greenlets run until it has ended."""
        waiter = call.token = getcurrent()
        if isinstance(call, Call):
            self.core.submit(call)
        else:
            self.core.watch(call)
        if not self._scheduled:
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
        """Wake the greenlet that waits for it, or settle its future."""
        token = call.token
        if isinstance(token, Future):
            if isinstance(call, Call):
                settle(token, call)
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

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            # After all greenlets that are ready now, so that what they submit leaves together.
            self._loop.run_callback(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._abandoned:
            return
        wake_at = self.turn()
        if self.core.open_calls:
            wake_at = min(wake_at, time.monotonic() + SWEEP)
        self._set_timer(wake_at)

    def _set_timer(self, wake_at: float) -> None:
        """Come back at ``wake_at``, or earlier: most calls end before their deadline does."""
        now = time.monotonic()
        pending = self._timer.active and now < self._timer_at <= wake_at
        if pending and self._timer.ref == bool(self.core.open_calls):
            return
        self._timer.stop()
        self._timer.close()
        if wake_at == math.inf:
            return
        self._timer_at = wake_at
        self._timer = self._loop.timer(max(0.0, wake_at - now), ref=bool(self.core.open_calls))
        self._timer.start(self._turn)

    def watch(self, link: Link, connection: transport.Connection) -> None:
        """Have the hub's loop watch the connection's descriptors."""
        self._watchers[link] = [
            self._loop.io(fileno, READ, ref=False) for fileno in connection.filenos()
        ]
        for watcher in self._watchers[link]:
            watcher.start(self._turn)

    def unwatch(self, link: Link) -> None:
        """Have the loop forget them."""
        for watcher in self._watchers.pop(link):
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
