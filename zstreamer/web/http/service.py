"""What all connections of one gateway process share, and who looks after those that wait."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from zstreamer.client.aio import Client
from zstreamer.web.api.interface import Interface
from zstreamer.web.directory import Directory
from zstreamer.web.http import response_head

PIECE = 64 * 1024
"""Bytes that are read at once, always into the same place; left to itself, asyncio allocates
256 KiB for each read."""

GLANCE = 1.0
"""Seconds between two looks at the connections' deadlines, which so may end that much late."""

BODIES = 16
"""As many of the largest bodies may be in memory at once, of all connections together."""

LEAST_RATE = 64 * 1024
"""Bytes a second of a body that lengthen the time it may take."""

LINGER = 2.0
"""Seconds for which a refused client may go on sending: closing at once would have the kernel
reset the connection, and the client might never read why."""

MOST_IGNORED = 16 * 1024 * 1024
"""Bytes that it may send meanwhile."""

PATIENCE = 30.0
"""Seconds in which a client must take some of what is written to it."""


class Served(Protocol):
    """A connection, as the service sees it; `deadline` is a time of the loop, in seconds."""

    deadline: float

    def drain(self) -> None:
        """Close it once no request is open."""

    def abort(self) -> None:
        """Close it at once."""

    def overdue(self) -> None:
        """Its deadline has passed."""


class Service:
    """Serves connections by one interface and one client, in the running loop.

    Args:
        interface: says what requests mean.
        client: for predictions.
        directory: for questions about models.
        read_timeout: seconds in which a request must come, and more for a large body.
        keep_alive: seconds for which a connection may be idle.

    Attributes:
        buffer: where what comes on any connection is put.
        connections: those that are open.
        held: bytes of bodies in memory; beyond `most_held` further ones are refused.
        draining: no connection is kept for a further request.
        date: the Date header as it is now.
    """

    def __init__(
        self,
        interface: Interface,
        client: Client,
        directory: Directory,
        read_timeout: float = 30.0,
        keep_alive: float = 75.0,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.interface = interface
        self.client = client
        self.directory = directory
        self.read_timeout = read_timeout
        self.keep_alive = keep_alive
        self.max_body = interface.limits.max_body
        self.most_held = BODIES * self.max_body
        self.buffer = memoryview(bytearray(PIECE))
        self.connections: set[Served] = set()
        self.held = 0
        self.draining = False
        self.date = b""
        self._timer: asyncio.TimerHandle | None = None
        self._look()

    def drain(self) -> None:
        """Close connections as soon as they have no request open."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    def close(self) -> None:
        """Close all connections, whatever is open on them."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.abort()

    def _look(self) -> None:
        now = self.loop.time()
        self.date = response_head.date(time.time())
        for connection in [each for each in self.connections if each.deadline < now]:
            connection.overdue()
        self._timer = self.loop.call_later(GLANCE, self._look)
