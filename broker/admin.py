"""The broker's HTTP port: health, readiness and status, for probes and people.

/healthz   200 while the broker's loop turns
/readyz    200 while a worker that is warm and not late serves at least one model, else 503
/status    the snapshot as JSON
"""

from __future__ import annotations

import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from zstreamer.broker.core import BrokerCore
from zstreamer.config import BrokerConfig

log = logging.getLogger(__name__)

PUBLISH = 0.5
"""Seconds between two snapshots; the loop makes them, the HTTP threads only read them."""

STALE = 5.0
"""Seconds without a new snapshot after which the loop counts as stuck."""


class Admin:
    """Serves the latest snapshot from a thread of its own; does nothing where the port is 0."""

    def __init__(self, config: BrokerConfig, core: BrokerCore) -> None:
        self._core = core
        self._next = 0.0
        self.snapshot: dict[str, object] = core.snapshot(time.monotonic())
        self.published = time.monotonic()
        self.ready: tuple[list[str], list[str]] = ([], [])
        self._server: ThreadingHTTPServer | None = None
        if config.http_port:
            try:
                self._server = ThreadingHTTPServer((config.host, config.http_port), _Handler)
            except OSError as error:
                log.warning(
                    "no HTTP port address=%s:%d: %s; choose another with --http-port, or 0",
                    config.host,
                    config.http_port,
                    error,
                )
        if self._server is not None:
            self._server.daemon_threads = True
            self._server.admin = self  # type: ignore[attr-defined]  # the handler's way back
            threading.Thread(target=self._server.serve_forever, name="admin", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that it serves, 0 for none."""
        return int(self._server.server_address[1]) if self._server is not None else 0

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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10  # seconds; a peer that sends nothing must not keep a thread for ever

    def do_GET(self) -> None:
        admin: Admin = self.server.admin  # type: ignore[attr-defined]  # set above
        if self.path == "/healthz":
            stuck = time.monotonic() - admin.published > STALE
            self._reply(503 if stuck else 200, {"ok": not stuck})
        elif self.path == "/readyz":
            ready, known = admin.ready
            self._reply(200 if ready else 503, {"ready": ready, "known": known})
        elif self.path == "/status":
            self._reply(200, admin.snapshot)
        else:
            self._reply(404, {"error": f"no page {self.path}; see /healthz, /readyz, /status"})

    def _reply(self, status: int, body: dict[str, object]) -> None:
        text = json.dumps(body, indent=1).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        log.debug(format, *args)
