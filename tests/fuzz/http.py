"""Bytes on an HTTP connection: they mean the same however the network cuts them into pieces."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable

from zstreamer.web.api.problem import Refused
from zstreamer.web.http.connection import Connection, Overdue
from zstreamer.web.http.response_head import CLOSE
from zstreamer.web.http.shared import Bounds, Shared

BOUNDS = Bounds(max_body=60)

BY_BYTE = 300
"""Bytes up to which an input is also given byte by byte."""


def check(data: bytes) -> None:
    """Read an input whole, and in pieces: both must find the same requests and refusals."""
    whole = requests([data])
    cuts = random.Random(zlib.crc32(data))
    places = sorted(cuts.randrange(len(data) + 1) for _ in range(4))
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    assert requests(pieces) == whole, pieces
    if len(data) <= BY_BYTE:
        assert requests(data[n : n + 1] for n in range(len(data))) == whole


def requests(pieces: Iterable[bytes]) -> list[object]:
    """Return what a server would answer, in order; each is answered as soon as it is there."""
    shared = Shared(BOUNDS, 100.0, 0.0)
    core = Connection(shared)
    found: list[object] = []
    for piece in pieces:
        if not core.receive(piece):
            break
        core.interim()
        if _answer(core, found):
            break
    else:
        if core.receiving:  # it never comes to its end
            assert core.overdue() is Overdue.ANSWER
            _answer(core, found)
    core.lost()
    assert shared.held == 0
    return found


def _answer(core: Connection, found: list[object]) -> bool:
    """Answer what is there; return whether the connection ends with that."""
    while (request := core.next()) is not None:
        connection = core.connection
        if isinstance(request, Refused):
            assert 400 <= request.status < 600
            assert request.status != 500, request.detail
            assert request.detail
            found.append(request.status)
        else:
            assert len(request.body) <= BOUNDS.max_body
            assert "\r" not in request.path + request.query or "%" in request.target.decode("latin")
            headers = sorted(request.headers.items())
            head = (request.method, request.path, request.query, request.version, headers)
            found.append((head, request.body, connection))
        if not core.answered(connection):
            assert connection is CLOSE
            core.finish()
            return True
    return False
