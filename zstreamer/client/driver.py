"""What the drivers for threads, gevent and asyncio share: connections around one core.

    a call is made, a descriptor is ready, a timer ends
        └─> turn: receive ─> core ─> send ─> complete calls ─> set the timer

A driver lives in one thread; all of its methods run there.
"""

from __future__ import annotations

import math
import os
import random
import secrets
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from zstreamer.client.calls import Call, Watch
from zstreamer.client.core import ClientCore
from zstreamer.wire.connections import Connections
from zstreamer.wire.transport import Connection, Options

SWEEP = 1.0
"""Seconds between two looks at the sockets while calls are open, should an edge be missed."""


class Driver(ABC):
    """Connections and timers around one `ClientCore`.

    Args:
        addresses: the brokers' client addresses.
        connect_timeout: seconds.
        options: liveness of the connections.
    """

    def __init__(self, addresses: Sequence[str], connect_timeout: float, options: Options) -> None:
        info: dict[str, object] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "program": Path(sys.argv[0] or "python").name,
        }
        now = time.monotonic()
        # random's shared generator is copied by a fork, and all children would jitter alike.
        jitter = random.Random(secrets.randbits(64)).random
        self.core = ClientCore(addresses, secrets.randbits(63), connect_timeout, now, jitter, info)
        self._connections = Connections(self.core, options, self.watch, self.unwatch)

    @abstractmethod
    def watch(self, connection: Connection) -> None:
        """Call `turn` whenever this connection has something to read."""

    @abstractmethod
    def unwatch(self, connection: Connection) -> None:
        """End what `watch` began; the connection is about to be closed."""

    @abstractmethod
    def complete(self, call: Call | Watch) -> None:
        """Give a call that has ended back to its caller."""

    def turn(self) -> float:
        """Do everything that can be done now; return when to come back (monotonic seconds)."""
        core = self.core
        now = time.monotonic()
        again = True
        while again:
            self._connections.read(now)
            again = False
            for action in core.poll(now):
                again = self._connections.act(now, action) or again
            for call in core.completed():
                self.complete(call)
                again = True  # its caller may have made the next call already
        return core.wake_at()

    def shut_down(self) -> None:
        """End all calls and close all connections."""
        self.core.close()
        now = time.monotonic()
        for action in self.core.poll(now):
            self._connections.act(now, action)
        for call in self.core.completed():
            self.complete(call)
        self._connections.close()


class LoopDriver(Driver):
    """A driver in an event loop: it turns after submissions, on readiness, and by one timer.

    See `Driver` for the arguments.
    """

    def __init__(self, addresses: Sequence[str], connect_timeout: float, options: Options) -> None:
        super().__init__(addresses, connect_timeout, options)
        self._scheduled = False
        self._timer_at = math.inf  # inf: no timer is set

    @abstractmethod
    def call_soon(self, function: Callable[[], None]) -> None:
        """Call a function after all that is ready now, so that what it submits leaves together."""

    @abstractmethod
    def set_timer(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function after so many seconds."""

    @abstractmethod
    def stop_timer(self) -> None:
        """End the timer that was set last, whether it has ended or not."""

    def timer_suits(self) -> bool:
        """Whether the timer that is set may stay."""
        return True

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        wake_at = self.turn()
        now = time.monotonic()
        if self.core.open_calls:
            wake_at = min(wake_at, now + SWEEP)
        # Come back then, or earlier: most calls end before their deadline does.
        if now < self._timer_at <= wake_at and self.timer_suits():
            return
        self.stop_timer()
        self._timer_at = wake_at
        if wake_at != math.inf:
            self.set_timer(max(0.0, wake_at - now), self._wake)

    def _wake(self) -> None:
        self._timer_at = (
            math.inf
        )  # some loops round, and come a little too early: then set it again
        self._turn()
