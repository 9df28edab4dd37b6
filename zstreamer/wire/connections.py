"""The connections of one core's links: what every driver of clients and workers does with them.

ready ─> read: messages and events ─> core ─> poll ─> act: open, send, close
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic

import zmq

from zstreamer.system.logs import Sparing
from zstreamer.wire.link import Close, Connect, L, LinkAction, LinkState, Peer, Send
from zstreamer.wire.transport import Connection, Event, Options

log = logging.getLogger(__name__)

LOG_EVERY = 30.0
"""Seconds between two lines on connections that fail alike."""

_REJECTED = (
    "something there takes each connection and ends it again: a broker that has no file "
    "descriptors left (its log says so), or a server of another kind"
)


class Connections(Generic[L]):
    """Opens, reads and closes connections for a core.

    Args:
        core: is told what has become of them.
        options: their liveness.
        watch: has the driver's loop wake when a connection has something to read.
        unwatch: ends that; the connection is about to be closed.
        linger: seconds that what was sent last gets to leave when one is closed.
    """

    def __init__(
        self,
        core: Peer[L, Any],
        options: Options,
        watch: Callable[[Connection], None],
        unwatch: Callable[[Connection], None],
        linger: float = 0.0,
    ) -> None:
        self._core = core
        self._options = options
        self._watch = watch
        self._unwatch = unwatch
        self._linger = linger
        self._open: dict[L, Connection] = {}
        self._sparing = Sparing(LOG_EVERY)

    def read(self, now: float, ready: Callable[[Connection], bool] | None = None) -> None:
        """Pass on what has come on all connections, or on those that are ``ready``."""
        for link, connection in list(self._open.items()):
            if ready is not None and not ready(connection):
                continue
            for frames in connection.receive():
                self._core.on_message(now, link, frames)
            # The events that a connection has ended with are read after its last messages.
            for event in connection.events():
                if event is Event.UP:
                    self._core.on_connected(now, link)
                elif link in self._open:
                    # A broker may have taken it before it sees that it must not.
                    unheard = event is Event.REJECTED or link.state is LinkState.GREETING
                    self._lost(now, link, _REJECTED if unheard else "")

    def act(self, now: float, action: LinkAction[L]) -> bool:
        """Do what the core asks for; return whether something may have become readable."""
        match action:
            case Send(link, frames):
                connection = self._open.get(link)
                if connection is not None:
                    if connection.send(frames):
                        return connection.pending()
                    self._lost(now, link)
            case Connect(link):
                self._connect(now, link)
            case Close(link):
                self._close(link)
                return False
        return True

    def close(self) -> None:
        """Close them all."""
        for link in list(self._open):
            self._close(link)

    def _connect(self, now: float, link: L) -> None:
        try:
            connection = Connection(link.address, self._options, self._linger)
        except (OSError, zmq.ZMQError) as error:
            words = error.strerror or str(error)
            if count := self._sparing.admit(now, f"{link.address} {words}"):
                log.warning("cannot connect address=%s times=%d: %s", link.address, count, words)
            self._core.on_failed(now, link, words)
            return
        self._open[link] = connection
        self._watch(connection)

    def _lost(self, now: float, link: L, why: str = "") -> None:
        self._close(link)
        self._core.on_failed(now, link, why)

    def _close(self, link: L) -> None:
        connection = self._open.pop(link, None)
        if connection is not None:
            self._unwatch(connection)
            connection.close()
