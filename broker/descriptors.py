"""What the broker does when it may open no further file or socket.

libzmq tries to accept a waiting connection again and again and would take most of a core. So the
listening sockets are closed until there is room: who is connected stays, and who comes is refused
by the system at once. Some descriptors are held back for the status pages.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from collections.abc import Mapping

import zmq

from zstreamer.system.logs import Sparing

log = logging.getLogger(__name__)

SPARE = 48
"""Descriptors that are held back."""

ROOM = 16
"""Descriptors that must be free besides those before connections are accepted again."""

RETRY = 1.0
"""Seconds between two attempts to accept connections again."""

LOG_EVERY = 60.0
"""Seconds between two lines on it."""


def allow_all() -> None:
    """Have this process open as many files and sockets as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS takes less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Descriptors:
    """Keeps some in hand, and the listening sockets closed while there are no others.

    Args:
        endpoints: what each socket is bound to.
    """

    def __init__(self, endpoints: Mapping[zmq.Socket[bytes], str]) -> None:
        self._endpoints = dict(endpoints)
        self._spare = _open(SPARE)
        self._closed: list[zmq.Socket[bytes]] = []
        self._retry_at = 0.0
        self._sparing = Sparing(LOG_EVERY)

    def short(self, now: float) -> None:
        """A connection could not be accepted: close the listening sockets if that is why."""
        if self._closed or _close(_open(1)):
            return
        for socket, endpoint in self._endpoints.items():
            with contextlib.suppress(zmq.ZMQError):
                socket.unbind(endpoint)
            self._closed.append(socket)
        self._retry_at = now + RETRY
        _close(self._spare)
        self._spare = []
        if count := self._sparing.admit(now, "short"):
            log.error(
                "no connections are accepted: all %d file descriptors are in use; raise the limit "
                "(ulimit -n, LimitNOFILE=) or look for clients that do not close theirs; times=%d",
                resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                count,
            )

    def check(self, now: float) -> None:
        """Accept connections again where there is room for them."""
        if not self._closed or now < self._retry_at:
            return
        self._retry_at = now + RETRY
        free = _open(SPARE + ROOM)
        if len(free) < SPARE + ROOM:
            _close(free)
            return
        self._spare = free[:SPARE]
        _close(free[SPARE:])
        while self._closed:
            try:
                self._closed[-1].bind(self._endpoints[self._closed[-1]])
            except zmq.ZMQError as error:
                if self._sparing.admit(now, "bind"):
                    log.error("cannot listen again: %s", error)  # noqa: TRY400  # one line says it
                return
            self._closed.pop()
        if self._sparing.admit(now, "again"):
            log.warning("connections are accepted again")

    def close(self) -> None:
        """Let go of all that is held back."""
        _close(self._spare)
        self._spare = []


def _open(count: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        while len(found) < count:
            found.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    return found


def _close(descriptors: list[int]) -> bool:
    """Close them; whether there was any."""
    for each in descriptors:
        os.close(each)
    return bool(descriptors)
