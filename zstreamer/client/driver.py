"""What the drivers for threads, gevent and asyncio share: connections around one core.

    a call is made, a descriptor is ready, a timer ends
        └─> turn: receive ─> core ─> send ─> complete calls ─> set the timer

A driver lives in one thread; all of its methods run there.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from zstreamer.client.calls import Call, Watch
from zstreamer.client.core import ClientCore
from zstreamer.wire.connections import Connections
from zstreamer.wire.transport import Connection, Options


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
