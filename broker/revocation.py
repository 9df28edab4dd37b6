"""What becomes of sessions when the lists of keys are edited.

A session whose key is gone is told why, then ignored; the driver ends its connection. What a worker
held goes to others as if its connection had been lost, and what a client waits for is dropped. A
key with other rights keeps its sessions, but for workers of a model that it may not serve any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from zstreamer.broker.sessions import Sessions, Side
from zstreamer.errors import Unauthorized
from zstreamer.keys.ring import Principal


def revoke(
    sessions: Sessions,
    now: float,
    gone: Collection[bytes],
    changed: Mapping[bytes, Principal],
) -> list[tuple[Side, bytes]]:
    """Do what an edit of the lists asks for; return the sessions that have ended.

    Args:
        sessions: of both sides.
        now: monotonic seconds.
        gone: keys that are not good any more.
        changed: keys that have other rights now.
    """
    for client in sessions.clients.values():
        if client.principal is not None:
            client.principal = changed.get(client.principal.key, client.principal)
    away = [c for c in sessions.clients.values() if c.session is None and c.principal is not None]
    for client in away:  # it may not come back, and nobody waits for its items
        if client.principal is not None and client.principal.key in gone:
            sessions.forget(client)
    ended = [
        (Side.CLIENT, session, client.principal)
        for session, client in sessions.connected.items()
        if client.principal is not None and client.principal.key in gone
    ]
    ended += _on_the_workers_side(sessions, gone, changed)
    for side, session, principal in ended:
        words = f"the key {principal.name!r} was revoked"
        if principal.key not in gone:
            words = f"the key {principal.name!r} may not serve this model any more"
        sessions.shut_out(now, side, session, Unauthorized(words))
    return [(side, session) for side, session, _ in ended]


def _on_the_workers_side(
    sessions: Sessions, gone: Collection[bytes], changed: Mapping[bytes, Principal]
) -> list[tuple[Side, bytes, Principal]]:
    ended = []
    for session, worker in sessions.workers.items():
        if worker.principal is not None:
            key = worker.principal.key
            worker.principal = changed.get(key, worker.principal)
            if key in gone or not worker.principal.may_serve(worker.serves):
                ended.append((Side.WORKER, session, worker.principal))
    for session, host in sessions.hosts.known.items():
        if host.principal is not None:
            host.principal = changed.get(host.principal.key, host.principal)
            if host.principal.key in gone:
                ended.append((Side.WORKER, session, host.principal))
    return ended
