"""The WSGI environs of the requests on a connection: bytes in, environs out. No sockets."""

from __future__ import annotations

import sys
from functools import lru_cache
from io import BytesIO
from typing import Final

from zstreamer.web.api.steps import Request
from zstreamer.web.http.receiver import Receiver, Sink

BASE: Final[dict[str, object]] = {
    "SCRIPT_NAME": "",
    "SERVER_SOFTWARE": "zstreamer",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.multithread": True,  # greenlets take turns amid each other's requests, as threads do
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
    "wsgi.input_terminated": True,
}
"""What all requests have in common (PEP 3333)."""


class Environs(Receiver):
    """Reads requests, and says what a WSGI app is told of each.

    A body is whole before its request is taken, so that no app ever waits for a slow sender.

    Args:
        sink: takes the requests; asks for `environ` while it takes one.
        max_body: bytes.
        server: host and port that are served.
        client: host and port of the other side.
    """

    def __init__(
        self, sink: Sink, max_body: int, server: tuple[str, int], client: tuple[str, int]
    ) -> None:
        super().__init__(sink, max_body)
        self._base = BASE | {
            "SERVER_NAME": server[0],
            "SERVER_PORT": str(server[1]),
            "REMOTE_ADDR": client[0],
            "REMOTE_PORT": str(client[1]),
            "wsgi.errors": sys.stderr,
        }

    def environ(self, request: Request) -> dict[str, object]:
        """Return the environ of the request that is being taken."""
        path, body = request.path, request.body
        environ = self._base.copy()
        for name, text in self._headers.items():
            environ[_variable(name)] = text.decode("latin-1")
        environ["REQUEST_METHOD"] = request.method
        # What WSGI calls text is bytes, each a character of Latin-1.
        environ["PATH_INFO"] = path if path.isascii() else path.encode().decode("latin-1")
        environ["QUERY_STRING"] = request.query
        environ["SERVER_PROTOCOL"] = f"HTTP/{self._version}"
        environ["wsgi.input"] = BytesIO(body)
        if body:  # it may have come in chunks, of which an app need not know
            environ["CONTENT_LENGTH"] = str(len(body))
            environ.pop("HTTP_TRANSFER_ENCODING", None)
        environ.pop("", None)
        return environ


@lru_cache(1024)
def _variable(name: bytes) -> str:
    """The name that a header has in an environ; empty for one that could pose as another."""
    text = name.decode("latin-1")
    if "_" in text:
        return ""
    variable = text.upper().replace("-", "_")
    return variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}"
