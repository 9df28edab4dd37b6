"""What becomes of the sessions of keys that are not good any more.

A session is told why, then ignored; the driver ends its connection. What a worker held goes to
others as if its connection had been lost, and what a client waits for is dropped.
"""

from __future__ import annotations

from collections.abc import Container

from zstreamer.broker.sessions import Sessions, Side
from zstreamer.errors import Unauthorized
from zstreamer.keys.ring import Principal


def revoke(sessions: Sessions, now: float, keys: Container[bytes]) -> list[tuple[Side, bytes]]:
    """End the sessions of these keys; return them."""
    ended: list[tuple[Side, bytes]] = []
    found: list[tuple[Side, bytes, Principal | None]] = [
        *((Side.CLIENT, session, c.principal) for session, c in sessions.connected.items()),
        *((Side.WORKER, session, w.principal) for session, w in sessions.workers.items()),
    ]
    for side, session, principal in found:
        if principal is not None and principal.key in keys:
            words = f"the key {principal.name!r} was revoked, or its rights were changed"
            sessions.shut_out(now, side, session, Unauthorized(words))
            ended.append((side, session))
    return ended
