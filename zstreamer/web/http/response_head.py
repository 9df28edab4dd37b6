"""How a response begins on an HTTP/1.1 connection: status line and headers as bytes."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

from zstreamer.web.api.steps import Response

_PHRASES = {499: "Client Closed Request"} | {each.value: each.phrase for each in HTTPStatus}
_LINES = {
    status: f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii") for status, phrase in _PHRASES.items()
}

CLOSE = b"connection: close\r\n"
KEEP = b"connection: keep-alive\r\n"
"""Which of the two a response says; HTTP/1.1 keeps a connection where neither is said."""


def status_line(status: int) -> str:
    """A status with its phrase, "200 OK"; see `Response` for those that HTTP does not name."""
    return f"{status} {_PHRASES.get(status, 'Refused')}"


def date(now: float) -> bytes:
    """The Date header for a moment; now: seconds of `time.time`."""
    return f"date: {formatdate(now, usegmt=True)}\r\n".encode("ascii")


def head(response: Response, date: bytes, connection: bytes = b"") -> bytes:
    """All of a response up to its body.

    Args:
        response: without Content-Length, Date and Connection.
        date: what `date` returned.
        connection: `CLOSE`, `KEEP` or nothing.
    """
    line = _LINES.get(response.status) or b"HTTP/1.1 %d \r\n" % response.status
    fields = "".join([f"{name}: {value}\r\n" for name, value in response.headers])
    return b"%s%s%scontent-length: %d\r\n%s\r\n" % (
        line,
        date,
        connection,
        response.length,
        fields.encode("latin-1", "replace"),
    )
