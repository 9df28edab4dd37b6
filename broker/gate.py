"""The broker's gate: lets connections in by their keys, and says whose key is not good any more.

    libzmq ── ZAP ──> Gate ── zap.answer ──> libzmq              each handshake
    files ── Reader, in a thread ──> Gate.changes ──> revocation     each edit of a list

It lives in the broker's own loop: a broker that hangs lets nobody in, and neither does one whose
gate is gone, since the sockets insist on an answer.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import zmq

from zstreamer.broker import zap
from zstreamer.broker.sessions import Side
from zstreamer.keys.reader import Reader
from zstreamer.keys.ring import Principal, Role
from zstreamer.keys.secrets import Pair
from zstreamer.system.logs import Sparing, printable
from zstreamer.wire import transport

log = logging.getLogger(__name__)

REQUESTS_A_TURN = 64
"""Handshakes that are answered before messages have their turn."""

LOG_EVERY = 10.0
"""Seconds between two lines on peers that are turned away, of one kind."""

ROLES = {Side.CLIENT: Role.CLIENT, Side.WORKER: Role.WORKER}
DOMAINS = {Side.CLIENT: b"clients", Side.WORKER: b"workers"}

_WORDS = {
    "unknown": "a key that is not on the lists was refused; times=%d last=%s%s",
    "other": "a key was refused at the port of the other role; times=%d last=%s key=%s",
    "malformed": "a handshake without a key was refused; times=%d%s%s",
}


class Change(NamedTuple):
    """What an edit of the files has changed.

    Attributes:
        gone: keys, as text, that are not good any more, or have other rights.
        pair: the broker's new pair, None where it has the one of before.
    """

    gone: frozenset[bytes]
    pair: Pair | None


class Gate:
    """Answers for one folder of keys.

    Args:
        folder: made by `zstreamer keys init`.

    Attributes:
        reader: the lists.
        socket: where libzmq asks; to be polled.

    Raises:
        ConfigError: a file is missing, open to others, or not what it should be.
        zmq.ZMQError: this process has a gate already.
    """

    def __init__(self, folder: str) -> None:
        self.reader = Reader(folder)
        self.lists = self.reader.lists
        self._sparing = Sparing(LOG_EVERY)
        self.socket = transport.zap()
        self.reader.start()

    def answer(self, now: float) -> None:
        """Answer the handshakes that wait."""
        for _ in range(REQUESTS_A_TURN):
            try:
                request = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            verdict = zap.answer(request, self.lists.ring)
            self.socket.send_multipart(verdict.reply, zmq.NOBLOCK)
            if verdict.trouble and (times := self._sparing.admit(now, verdict.trouble)):
                name = verdict.principal.name if verdict.principal else ""
                log.warning(_WORDS[verdict.trouble], times, printable(verdict.address, 64), name)

    def who(self, side: Side, user: str) -> Principal | None:
        """Return whose message it is, by its User-Id; None where that key may not pass any more."""
        found = self.lists.ring.of(user.encode())
        return found if found is not None and found.role is ROLES[side] else None

    def changes(self) -> Change | None:
        """Return what has changed since the last time, None where nothing has."""
        before, after = self.lists, self.reader.lists
        if after is before:
            return None
        self.lists = after
        same = after.pair.public == before.pair.public
        return Change(before.ring.gone(after.ring), None if same else after.pair)

    def close(self) -> None:
        """Answer no more: from now on nobody gets in."""
        self.socket.close(linger=0)
