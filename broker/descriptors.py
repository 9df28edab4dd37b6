"""What the broker does when it has almost no file descriptors left.

A libzmq that cannot accept a connection tries again and again and takes most of a core. So it is
never to come to that: the system gives each connection the smallest free number, and one whose
number lies among the last is closed again as soon as it is seen. Those numbers are for the status
pages, which so answer then too; and who is connected stays connected.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
from typing import TypeAlias

from zstreamer.system.logs import Sparing

log = logging.getLogger(__name__)

Place: TypeAlias = int | str
"""Where connections come in: a TCP port, or the file of a Unix socket."""

SPARE = 64
"""Descriptors that are kept free: no client and no worker gets them."""

LOG_EVERY = 60.0
"""Seconds between two lines on it."""


def allow_all() -> None:
    """Raise the limit on open files and sockets of this process as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS takes less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Descriptors:
    """Keeps some descriptors free."""

    def __init__(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.limit = limit if limit != resource.RLIM_INFINITY else 2**31
        self._first_spare = self.limit - min(SPARE, self.limit // 2)
        self._sparing = Sparing(LOG_EVERY)

    def accepted(self, now: float, descriptor: int, place: Place) -> None:
        """A client or worker has connected: close its connection again if it is one of the last."""
        if descriptor < self._first_spare:
            return
        shut(descriptor, place)
        self.failed(now)

    def failed(self, now: float) -> None:
        """A connection was not accepted, or not kept."""
        if count := self._sparing.admit(now, "short"):
            log.error(
                "connections are turned away: %d file descriptors are allowed and nearly all in "
                "use; raise the limit (ulimit -n, LimitNOFILE=), or look for clients that do not "
                "close their connections; times=%d",
                self.limit,
                count,
            )


def place(endpoint: str) -> Place:
    """Return the port, or the socket's file, of an endpoint as libzmq tells it."""
    kind, _, address = endpoint.partition("://")
    return address if kind == "ipc" else int(address.rpartition(":")[2])


def shut(descriptor: int, place: Place) -> None:
    """End a connection that belongs to libzmq, which then sees that it has ended.

    Args:
        descriptor: of the connection, as libzmq told it; the number may since be that of another
            one, such as a status page's.
        place: where such connections come in; others are left alone.
    """
    with contextlib.suppress(OSError, ValueError):  # it has gone by itself, or is no socket
        connection = socket.socket(fileno=descriptor)
        try:
            name = connection.getsockname()
            if place == (name[1] if isinstance(name, tuple) else name):
                connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()  # it is libzmq's to close
