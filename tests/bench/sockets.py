"""Raw DEALERs by the thousand, and which of them may be read."""

from __future__ import annotations

import select
from collections.abc import Iterable
from functools import cache
from typing import Generic, Protocol, TypeVar

import zmq

from zstreamer.keys.secrets import Curve

PATIENCE = 20.0
"""Seconds without anything to read after which a benchmark gives up."""

SOCKETS = 10_000


class Speaker(Protocol):
    """Whoever has a socket."""

    socket: zmq.Socket[bytes]


AnySpeaker = TypeVar("AnySpeaker", bound=Speaker)


class Ready(Generic[AnySpeaker]):
    """Which of many peers may be read, at a cost that depends on those alone.

    A zmq.Poller looks at each socket each time, which for a thousand takes longer than the broker
    takes for what they sent. The descriptors tell edges only, and a send may swallow one: whoever
    has `sent` is asked again.
    """

    def __init__(self, peers: Iterable[AnySpeaker]) -> None:
        self._peers: dict[int, AnySpeaker] = {}
        self._epoll = select.epoll()
        self._sent: dict[AnySpeaker, None] = {}
        for peer in peers:
            descriptor = int(peer.socket.getsockopt(zmq.FD))
            self._peers[descriptor] = peer
            self._epoll.register(descriptor, select.EPOLLIN)
            self._sent[peer] = None

    def sent(self, peer: AnySpeaker) -> None:
        """This peer has sent something since the last `wait`."""
        self._sent[peer] = None

    def wait(self, seconds: float = PATIENCE) -> list[AnySpeaker]:
        """Return the peers that may be read, as soon as there are any; none after so long."""
        asked = (p for p in self._sent if int(p.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
        ready = dict.fromkeys(asked)
        self._sent.clear()
        found = self._epoll.poll(0 if ready else seconds)
        ready.update(dict.fromkeys(self._peers[descriptor] for descriptor, _ in found))
        return list(ready)


CURVES: dict[str, Curve] = {}
"""The keys that addresses ask for; those that are not here ask for none."""


def dealer(address: str) -> zmq.Socket[bytes]:
    """Return a connected DEALER without limits on its queues."""
    socket = _context().socket(zmq.DEALER)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.LINGER, 0)
    if (curve := CURVES.get(address)) is not None:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.pair.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, curve.pair.secret.reveal())
        socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server)
    socket.connect(address)
    return socket


@cache
def _context() -> zmq.Context[zmq.Socket[bytes]]:
    # One of its own: how many sockets there may be must be said before the first is made.
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, SOCKETS)
    return context
