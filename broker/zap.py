"""Answers libzmq's questions whether a key may pass: ZAP, ZeroMQ RFC 27. Pure.

    handshake of a connection ── request ──> answer ── reply ──> libzmq lets it in, or ends it

libzmq tells the peer the status alone: 400 is a key that is not known, 500 one that is known for
the other port. Who was let in is kept by libzmq as the User-Id of each message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zstreamer.keys.ring import Principal, Ring, Role

DOMAINS = {b"clients": Role.CLIENT, b"workers": Role.WORKER}
"""What the two sockets call themselves, and the role that a key must have there."""

_VERSION = b"1.0"
_FRAMES = 7
"""Frames of a request with a CURVE key: version, id, domain, address, identity, mechanism, key."""


class Verdict(NamedTuple):
    """What is answered.

    Attributes:
        reply: the frames for libzmq.
        principal: who was let in, or would be at the other port.
        trouble: why nobody was let in; empty where somebody was.
        address: where the connection comes from.
    """

    reply: list[bytes]
    principal: Principal | None
    trouble: str
    address: str


def answer(request: Sequence[bytes], ring: Ring) -> Verdict:
    """Return the answer to one request.

    Args:
        request: its frames, whatever they are.
        ring: who may pass.
    """
    if len(request) != _FRAMES or request[0] != _VERSION or request[5] != b"CURVE":
        id = request[1] if len(request) > 1 else b""
        return Verdict(_reply(id, b"400"), None, "malformed", "")
    _, id, domain, address, _, _, key = request
    where = address.decode("ascii", "replace")
    principal = ring.of(key)
    if principal is None:
        return Verdict(_reply(id, b"400"), None, "unknown", where)
    if DOMAINS.get(domain) is not principal.role:
        return Verdict(_reply(id, b"500"), principal, "other", where)
    return Verdict(_reply(id, b"200", principal.key), principal, "", where)


def _reply(id: bytes, status: bytes, user: bytes = b"") -> list[bytes]:
    text = b"OK" if user else b"refused"
    return [_VERSION, id, status, text, user, b""]
