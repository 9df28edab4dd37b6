"""The broker's HTTP port: health, readiness and status, for probes and people.

/healthz   200 while the broker's loop turns
/readyz    200 while a worker that is warm and not late serves at least one model, else 503
/status    the snapshot as JSON
/operator  POST {"action": "drain" or "resume", "name": …}; see `zstreamer.broker.operator`

Anyone who reaches the port may read. To act takes the operator's token; where the broker has none,
a program on this machine may, but no page in a browser on it.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import queue
import socket
import sys
import threading
import time
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from zstreamer.broker import operator
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.operator import Outcome
from zstreamer.config import BrokerConfig

log = logging.getLogger(__name__)

PUBLISH = 0.5
"""Seconds between two snapshots; the loop makes them, the HTTP threads only read them."""

MAX_CONNECTIONS = 32
"""Connections that are served at once; see `descriptors.SPARE`, which is more."""

STALE = 5.0
"""Seconds without a new snapshot after which the loop counts as stuck."""

MAX_BODY = 4096
"""Bytes of a request to act."""

PATIENCE = 5.0
"""Seconds that such a request waits for the broker's loop."""

_FORWARDED = ("Forwarded", "X-Forwarded-For", "Via")
_BROWSER = ("Origin", "Referer", "Sec-Fetch-Site")
"""Headers of a request that comes from elsewhere although its connection is a local one."""


class Admin:
    """Serves the latest snapshot from a thread of its own; does nothing where the port is 0."""

    def __init__(self, config: BrokerConfig, core: BrokerCore) -> None:
        self._core = core
        self._token = config.operator_token
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
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

    def may_act(self, peer: str, headers: Message) -> str:
        """Return why a request may change nothing here; empty where it may.

        Args:
            peer: address of who asks.
            headers: of the request.
        """
        given = headers.get("Authorization", "")
        if self._token:
            right = hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode())
            return "" if right else "the operator's token is missing or wrong"
        local = ipaddress.ip_address(peer.partition("%")[0])
        mapped = getattr(local, "ipv4_mapped", None) or local
        if not mapped.is_loopback or any(each in headers for each in (*_FORWARDED, *_BROWSER)):
            return "start the broker with --operator-token to act from elsewhere than its machine"
        return ""

    def order(self, action: object, name: object) -> Outcome:
        """Have the broker's loop do something, and wait until it is done."""
        order = _Order(action, name)
        self._orders.put(order)
        if not order.done.wait(PATIENCE):
            return Outcome(503, {"error": "the broker's loop is busy; it may still act"})
        return order.outcome

    def publish(self, now: float) -> None:
        """Do what operators have asked for, and take a new snapshot where one is due."""
        while not self._orders.empty():
            order = self._orders.get()
            order.outcome = operator.act(self._core, order.action, order.name)
            log.info("operator %s %.200r: %s", order.action, order.name, order.outcome.body)
            order.done.set()
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


class _Order:
    """What an HTTP thread has the broker's loop do."""

    def __init__(self, action: object, name: object) -> None:
        self.action = action
        self.name = name
        self.outcome = Outcome(503, {})
        self.done = threading.Event()


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
        if self.path == "/healthz":
            stuck = time.monotonic() - admin.published > STALE
            self._reply(503 if stuck else 200, {"ok": not stuck})
        elif self.path == "/readyz":
            ready, known = admin.ready
            self._reply(200 if ready else 503, {"ready": ready, "known": known})
        elif self.path == "/status":
            self._reply(200, admin.snapshot)
        else:
            self._reply(404, {"error": f"no page {self.path:.100}; see /healthz, /readyz, /status"})

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if not size.isdigit() or int(size) > MAX_BODY:
            self.close_connection = True
            self._reply(411, {"error": f"send a body of at most {MAX_BODY} bytes, and its length"})
            return
        body = self.rfile.read(int(size))
        admin = self.server.admin
        if self.path != "/operator":
            self._reply(404, {"error": f"nothing to POST at {self.path:.100}; see /operator"})
        elif why := admin.may_act(self.client_address[0], self.headers):
            self._reply(403, {"error": why})
        else:
            try:
                asked = json.loads(body)
            except ValueError:
                asked = None
            if not isinstance(asked, dict):
                self._reply(400, {"error": "the body must be a JSON object"})
                return
            self._reply(*admin.order(asked.get("action"), asked.get("name")))

    def _reply(self, status: int, body: dict[str, object]) -> None:
        text = json.dumps(body, indent=1).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        log.debug(format, *args)
