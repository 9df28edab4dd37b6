"""Which session spoke on which connection, and the end of connections that may not go on.

A ROUTER names sessions only. libzmq tells each message's connection by its file descriptor, and a
number that is free again may soon be another's connection: nobody is to be cut off by mistake.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import zmq

from zstreamer.broker import descriptors
from zstreamer.broker.descriptors import Descriptors
from zstreamer.broker.patience import DEAF
from zstreamer.broker.sessions import Sessions, Side
from zstreamer.wire.transport import Inbox, Monitored

EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPTED | zmq.EVENT_ACCEPT_FAILED
"""What the monitor of a ROUTER is to tell."""

ENDED_FOR = 5.0
"""Seconds for which messages that a session left behind do not end a connection again."""

MAX_ENDED = 10_000
"""Sessions of which that is known."""

LAST_WORDS = 0.25
"""Seconds in which a session may read why it is not heard any more, before its connection ends."""


class Disconnects:
    """Ends connections of the two ROUTERs.

    Args:
        sessions: of both sides.
        sockets: the ROUTERs, bound.
        inboxes: what comes to them; these know the connection of the last message.
    """

    def __init__(
        self,
        sessions: Sessions,
        sockets: Mapping[Side, zmq.Socket[bytes]],
        inboxes: Mapping[Side, Inbox],
    ) -> None:
        self._sessions = sessions
        self._inboxes = inboxes
        self._descriptors = Descriptors()
        self._places = {
            side: descriptors.place(socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"))
            for side, socket in sockets.items()
        }
        self._ended: dict[bytes, float] = {}  # when; the latest is last
        self._speakers: dict[int, tuple[Side, bytes]] = {}  # who said HELLO last, by descriptor
        self._revoked: dict[tuple[Side, bytes], float] = {}  # and when their connections end

    def greeted(self, side: Side, session: bytes) -> None:
        """A session has said HELLO in the last message of its side."""
        self._speakers[self._inboxes[side].descriptor] = side, session

    def revoke(self, now: float, sessions: Iterable[tuple[Side, bytes]]) -> None:
        """These may not be here any more: their connections end once they were told why."""
        self._revoked.update(dict.fromkeys(sessions, now + LAST_WORDS))

    def end_revoked(self, now: float) -> None:
        """End the connections of those whose time has come."""
        for who in [each for each, at in self._revoked.items() if at <= now]:
            del self._revoked[who]
            for descriptor in [fd for fd, each in self._speakers.items() if each == who]:
                del self._speakers[descriptor]
                descriptors.shut(descriptor, self._places[who[0]])

    def cut(self, now: float, side: Side, session: bytes) -> None:
        """End the connection of a session that is not heard any more, once it was told why."""
        if now >= self._sessions.deaf(side).get(session, 0.0) - DEAF + LAST_WORDS:
            self.end(now, side, session)

    def end(self, now: float, side: Side, session: bytes) -> None:
        """End the connection on which the last message of this side came.

        The descriptor may have become another's: that of a session that has said HELLO there is
        left alone. One that has not yet can begin anew; so that it need not again and again, what
        else has come of the ended session before ends nothing for a while.
        """
        if now < self._ended.get(session, -math.inf) + ENDED_FOR:
            return
        if len(self._ended) >= MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended.pop(session, None)
        self._ended[session] = now
        descriptor = self._inboxes[side].descriptor
        speaker = self._speakers.get(descriptor)
        if speaker in (None, (side, session)) or not self._sessions.knows(*speaker):
            self._speakers.pop(descriptor, None)
            descriptors.shut(descriptor, self._places[side])

    def told(self, now: float, side: Side, event: Monitored) -> bool:
        """A ROUTER's monitor tells of a connection; return whether a session may have gone."""
        if event.kind == zmq.EVENT_ACCEPTED:
            self._descriptors.accepted(now, event.value, self._places[side])
        elif event.kind == zmq.EVENT_ACCEPT_FAILED:
            self._descriptors.failed(now)
        else:
            return self._may_be_missed(side, event.value)
        return False

    def _may_be_missed(self, side: Side, descriptor: int) -> bool:
        """Whether a session may have gone with a descriptor: not where nobody said HELLO on it."""
        speaker = self._speakers.get(descriptor)
        if speaker is not None and speaker[0] is side:
            self._revoked.pop(speaker, None)
            return self._sessions.knows(*speaker)
        return -1 in self._speakers
