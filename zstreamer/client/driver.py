"""What the drivers for threads, gevent and asyncio share: connections around one core.

    a call is made, a descriptor is ready, a timer ends
        └─> turn: receive ─> core ─> send ─> complete calls ─> set the timer

A driver lives in one thread; all of its methods run there.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import zmq

from zstreamer.client.actions import Action, Close, Connect, Send
from zstreamer.client.calls import Call, Watch
from zstreamer.client.core import ClientCore
from zstreamer.client.link import Link
from zstreamer.wire import transport

log = logging.getLogger(__name__)


class Driver(ABC):
    """Connections and timers around one `ClientCore`.

    Args:
        addresses: the brokers' client addresses.
        connect_timeout: seconds.
        options: liveness of the connections.
    """

    def __init__(
        self, addresses: Sequence[str], connect_timeout: float, options: transport.Options
    ) -> None:
        info: dict[str, object] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "program": Path(sys.argv[0] or "python").name,
        }
        now = time.monotonic()
        # random's shared generator is copied by a fork, and all children would jitter alike.
        jitter = random.Random(secrets.randbits(64)).random
        self.core = ClientCore(addresses, secrets.randbits(63), connect_timeout, now, jitter, info)
        self._options = options
        self._connections: dict[Link, transport.Connection] = {}

    @abstractmethod
    def watch(self, link: Link, connection: transport.Connection) -> None:
        """Call `turn` whenever this connection has something to read."""

    @abstractmethod
    def unwatch(self, link: Link) -> None:
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
            for link, connection in list(self._connections.items()):
                for frames in connection.receive():
                    core.on_message(now, link, frames)
                for event in connection.events():
                    self._event(now, link, event)
            again = False
            for action in core.poll(now):
                again = self._act(now, action) or again
            for call in core.completed():
                self.complete(call)
                again = True  # its caller may have made the next call already
        return core.wake_at()

    def shut_down(self) -> None:
        """End all calls and close all connections."""
        self.core.close()
        now = time.monotonic()
        for action in self.core.poll(now):
            self._act(now, action)
        for call in self.core.completed():
            self.complete(call)
        for link in list(self._connections):
            self._close(link)

    def _event(self, now: float, link: Link, event: transport.Event) -> None:
        if event is transport.Event.UP:
            self.core.on_connected(now, link)
        elif link in self._connections:
            self._close(link)
            self.core.on_lost(now, link)

    def _act(self, now: float, action: Action) -> bool:
        """Do what the core asks for; return whether something may have become readable."""
        match action:
            case Send(link, frames):
                connection = self._connections.get(link)
                if connection is not None:
                    if connection.send(frames):
                        return connection.pending()
                    self._close(link)
                    self.core.on_lost(now, link)
                return True
            case Connect(link):
                return self._connect(now, link)
            case Close(link):
                self._close(link)
        return False

    def _connect(self, now: float, link: Link) -> bool:
        try:
            connection = transport.Connection(link.address, self._options)
        except zmq.ZMQError as error:
            log.debug("cannot connect address=%s: %s", link.address, error)
            self.core.on_lost(now, link)
            return True
        self._connections[link] = connection
        self.watch(link, connection)
        return True

    def _close(self, link: Link) -> None:
        connection = self._connections.pop(link, None)
        if connection is not None:
            self.unwatch(link)
            connection.close()
