"""The broker's HTTP port: health, readiness and status, for probes and people.

/healthz   200 while the broker's loop turns
/readyz    200 while a worker that is warm and not late serves at least one model, else 503
/status    the snapshot as JSON

Beyond loopback, and where the broker asks for keys, what is not for probes needs a bearer token
(`zstreamer keys http NAME`).
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from zstreamer.broker.core import BrokerCore
from zstreamer.config import BrokerConfig, stays_on_machine
from zstreamer.keys.bearer import Callers

log = logging.getLogger(__name__)

PUBLISH = 0.5
"""Seconds between two snapshots; the loop makes them, the HTTP threads only read them."""

MAX_CONNECTIONS = 32
"""Connections that are served at once; see `descriptors.SPARE`, which is more."""

PROBES = ("/healthz", "/readyz")
"""Pages that need no token."""

STALE = 5.0
"""Seconds without a new snapshot after which the loop counts as stuck."""


class Admin:
    """Serves the latest snapshot from a thread of its own; does nothing where the port is 0.

    Args:
        config: where to serve.
        core: whose snapshot.
        callers: returns whose bearer tokens are good now; None where the broker asks for no keys.
    """

    def __init__(
        self,
        config: BrokerConfig,
        core: BrokerCore,
        callers: Callable[[], Callers] | None = None,
    ) -> None:
        self._core = core
        local = stays_on_machine(f"tcp://{config.host}:{config.http_port}")
        self._callers = None if local else callers
        self._next = 0.0
        self.snapshot: dict[str, object] = core.snapshot(time.monotonic())
        self.published = time.monotonic()
        self.ready: tuple[list[str], list[str]] = ([], [])
        self._server: _Server | None = None
        if config.http_port:
            try:
                self._server = _Server((config.host, config.http_port), self)
            except OSError as error:
                log.warning(
                    "no HTTP port address=%s:%d: %s; choose another with --http-port, or 0",
                    config.host,
                    config.http_port,
                    error,
                )
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, name="admin", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that it serves, 0 for none."""
        return int(self._server.server_address[1]) if self._server is not None else 0

    def admits(self, authorization: str | None) -> bool:
        """Whether a caller with this header may see what is not for probes."""
        return self._callers is None or self._callers().of(authorization) is not None

    def publish(self, now: float) -> None:
        """Take a new snapshot where one is due."""
        if self._server is not None and now >= self._next:
            self._next = now + PUBLISH
            self.snapshot = self._core.snapshot(now)
            models = self._core.models.values()
            self.ready = (
                sorted(model.name for model in models if model.ready),
                sorted(model.name for model in models if model.known),
            )
            self.published = now

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    """A thread for each connection, of which there are a few at most: the oldest makes room."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], admin: Admin) -> None:
        self.admin = admin
        self._open: dict[int, socket.socket] = {}
        self._opening = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind; `::` is every address of this machine, those of IPv4 too, as for ZeroMQ."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin to serve a connection."""
        with self._opening:
            if len(self._open) >= MAX_CONNECTIONS:
                oldest = self._open.pop(next(iter(self._open)))
                with suppress(OSError):  # it may have gone by itself
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[id(request)] = request
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A connection has ended."""
        with self._opening:
            self._open.pop(id(request), None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # the base's
        """A peer that hangs up during its answer is not logged; anything else is."""
        error = sys.exc_info()[1]
        level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
        log.log(level, "a request was not answered peer=%s", client_address[0], exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 10  # seconds; a peer that sends nothing must not keep a thread for ever

    def do_GET(self) -> None:
        admin = self.server.admin
        if self.path not in PROBES and not admin.admits(self.headers.get("Authorization")):
            self._reply(401, {"error": "this page needs a token: Authorization: Bearer TOKEN"})
        elif self.path == "/healthz":
            stuck = time.monotonic() - admin.published > STALE
            self._reply(503 if stuck else 200, {"ok": not stuck})
        elif self.path == "/readyz":
            ready, known = admin.ready
            self._reply(200 if ready else 503, {"ready": ready, "known": known})
        elif self.path == "/status":
            self._reply(200, admin.snapshot)
        else:
            self._reply(404, {"error": f"no page {self.path:.100}; see /healthz, /readyz, /status"})

    def _reply(self, status: int, body: dict[str, object]) -> None:
        text = json.dumps(body, indent=1).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Bearer realm="zstreamer"')
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        log.debug(format, *args)
