"""The connections of one core's links: what every driver of clients and workers does with them.

ready ─> read: messages and events ─> core ─> poll ─> act: open, send, close
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic

import zmq

from zstreamer.keys.credentials import Credentials
from zstreamer.system.logs import Sparing
from zstreamer.wire import handshake
from zstreamer.wire.handshake import Probe
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
        credentials: what the brokers ask for, None where they ask for none.
    """

    def __init__(
        self,
        core: Peer[L, Any],
        options: Options,
        watch: Callable[[Connection], None],
        unwatch: Callable[[Connection], None],
        linger: float = 0.0,
        credentials: Credentials | None = None,
    ) -> None:
        self._core = core
        self._options = options
        self._watch = watch
        self._unwatch = unwatch
        self._linger = linger
        self._credentials = credentials
        self._key: dict[L, int] = {}  # which of the brokers' keys that are trusted is next
        self._misses: dict[L, int] = {}  # how many in a row were not the broker's
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
                    self._misses.pop(link, None)
                    self._core.on_connected(now, link)
                elif link in self._open:
                    # A broker may have taken it before it sees that it must not.
                    probed = isinstance(connection, Probe)
                    unheard = event is Event.REJECTED or link.state is LinkState.GREETING or probed
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
        curve = None
        if self._credentials is not None:
            curve = self._credentials.curve(self._key.get(link, 0))
        try:
            connection = Connection(link.address, self._options, self._linger, curve)
        except (OSError, zmq.ZMQError) as error:
            words = error.strerror or str(error)
            if count := self._sparing.admit(now, f"{link.address} {words}"):
                log.warning("cannot connect address=%s times=%d: %s", link.address, count, words)
            self._core.on_failed(now, link, words)
            return
        self._open[link] = connection
        self._watch(connection)

    def _lost(self, now: float, link: L, why: str = "") -> None:
        connection = self._open[link]
        self._close(link)
        if handshake.needs_probe(connection) and self._probe(link):
            return
        denied = handshake.cause(connection, link.address, self._credentials)
        if denied is not None and not self._may_have_another_key(link, connection):
            self._core.on_denied(now, link, denied)
        else:
            self._core.on_failed(now, link, why)

    def _probe(self, link: L) -> bool:
        """Have the broker's greeting read; False where no connection can be opened."""
        try:
            probe = Probe(link.address, self._options)
        except (OSError, zmq.ZMQError):
            return False
        self._open[link] = probe
        self._watch(probe)
        return True

    def _may_have_another_key(self, link: L, connection: Connection) -> bool:
        """Whether to try the next of the keys that are trusted; the only one is tried twice, as a
        broker that was just started anew may have cut the first handshake short.
        """
        if self._credentials is None or not handshake.is_other_key(connection):
            return False
        self._key[link] = self._key.get(link, 0) + 1
        self._misses[link] = misses = self._misses.get(link, 0) + 1
        return misses < max(2, self._credentials.servers)

    def _close(self, link: L) -> None:
        connection = self._open.pop(link, None)
        if connection is not None:
            self._unwatch(connection)
            connection.close()
