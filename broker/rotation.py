"""The broker's key is changed while it runs: its ports are opened anew with the next one.

libzmq takes a server's key when it binds. Who is connected stays connected. An address that cannot
be bound again at once is tried again until it can: that is no reason to end what others have here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import suppress

import zmq

from zstreamer.broker.gate import DOMAINS
from zstreamer.broker.sessions import Side
from zstreamer.keys.secrets import Pair
from zstreamer.system.logs import Sparing
from zstreamer.wire import transport

log = logging.getLogger(__name__)

AGAIN = 0.005
"""Seconds between two attempts; libzmq closes the former listener in a thread of its own."""

PATIENCE = 2.0
"""Seconds of attempts before the log is told; mostly it takes a millisecond."""

LOG_EVERY = 10.0


class Rotation:
    """Opens the ports of one broker anew.

    Args:
        sockets: the two ROUTERs, bound.
        endpoints: where.

    Attributes:
        wake_at: monotonic seconds at which `look` has something to do; infinite for never.
    """

    def __init__(
        self, sockets: Mapping[Side, zmq.Socket[bytes]], endpoints: Mapping[Side, str]
    ) -> None:
        self._sockets = sockets
        self._endpoints = endpoints
        self._closed: dict[Side, float] = {}  # since when
        self._sparing = Sparing(LOG_EVERY)
        self.wake_at = math.inf

    def begin(self, now: float, pair: Pair) -> None:
        """Have those who come from now on be shown this key."""
        for side, socket in self._sockets.items():
            if side not in self._closed:
                with suppress(zmq.ZMQError):  # it is not bound; to bind it says what is wrong
                    transport.unbind(socket, self._endpoints[side])
            transport.secure(socket, pair, DOMAINS[side])
            self._closed.setdefault(side, now)
        self.look(now)

    def look(self, now: float) -> None:
        """Open the ports that are still closed."""
        for side, since in list(self._closed.items()):
            endpoint = self._endpoints[side]
            try:
                self._sockets[side].bind(endpoint)
            except zmq.ZMQError as error:
                if now - since >= PATIENCE and self._sparing.admit(now, endpoint):
                    log.error(  # noqa: TRY400  # a traceback tells no more
                        "cannot open %s again with the broker's next key: %s; new connections fail "
                        "there, those that stand go on, and it is tried again",
                        endpoint,
                        error,
                    )
            else:
                del self._closed[side]
                if now - since >= PATIENCE:
                    log.warning("%s is open again", endpoint)
        self.wake_at = now + AGAIN if self._closed else math.inf
