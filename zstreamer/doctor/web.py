"""Whether a web server sends its answers in pieces that wait for each other: Nagle's algorithm.

A server that sends head and body as two packets, and has not set TCP_NODELAY, keeps the second back
until the first is acknowledged; and a client acknowledges late, after 40 ms on Linux.
"""

from __future__ import annotations

import contextlib
import socket
import time
from urllib.parse import urlsplit

from zstreamer.doctor.finding import Finding

ASKED = 12
"""Requests on one connection; Linux acknowledges the first packets of one at once."""

DELAYED = (0.03, 0.09)
"""Seconds between the parts of an answer that a late acknowledgement explains."""

TIMEOUT = 5.0
MAX_ANSWER = 1024 * 1024


def answers_in_pieces(url: str) -> Finding | None:
    """Ask a page several times on one connection; return what is wrong, None for nothing.

    Args:
        url: ``http://HOST:PORT/PATH``.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return Finding("url", 65, f"{url} cannot be looked at", "it is no http:// URL", "give one")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    gaps: list[float] = []
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), TIMEOUT) as connection:
            for _ in range(ASKED):
                gap = _ask(connection, request)
                if gap is None:
                    break
                gaps.append(gap)
    except OSError as error:
        return Finding(
            "web-server", 98, f"no web server answers at {url}", str(error), "check the URL"
        )
    late = [gap for gap in gaps if DELAYED[0] <= gap <= DELAYED[1]]
    if 2 * len(late) < len(gaps) or len(late) < 3:
        return None
    return Finding(
        "nagle",
        46,
        f"the web server at {url} sends each answer in two packets and waits between them (Nagle)",
        f"in {len(late)} of {len(gaps)} answers the second part came {late[0] * 1000:.0f} ms after "
        "the first, which is how long a client waits before it acknowledges",
        "serve with zstreamer.web.gunicorn.Worker, or set TCP_NODELAY on the server's connections "
        "(gevent's pywsgi does not)",
    )


def _ask(connection: socket.socket, request: bytes) -> float | None:
    """Return the longest pause within one answer; None where the connection has ended."""
    connection.sendall(request)
    answer = b""
    longest, before = 0.0, 0.0
    while not _whole(answer):
        if hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        more = connection.recv(65536)
        if not more or len(answer) > MAX_ANSWER:
            return None
        now = time.monotonic()
        longest = max(longest, now - before if before else 0.0)
        before = now
        answer += more
    return longest


def _whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return len(body) >= int(value)
        if name == b"transfer-encoding" and b"chunked" in value:
            return body.endswith(b"0\r\n\r\n")
    return head[9:12] in (b"204", b"304")
