"""A few HTTP pages from a thread of their own, for probes, Prometheus and people."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from zstreamer.keys.bearer import Callers

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 32
"""Connections that are served at once; the broker keeps more descriptors spare."""


MAX_BODY: Final = 4096
"""Bytes that are taken with POST."""


class Page(NamedTuple):
    """What a path is answered with."""

    status: int
    body: bytes
    kind: str = "application/json"
    headers: Mapping[str, str] = {}


class Request(NamedTuple):
    """What is sent to a path with POST.

    Attributes:
        peer: address of who sends it.
        headers: of the request.
        body: at most `MAX_BODY` bytes.
    """

    peer: str
    headers: Message
    body: bytes


Query: TypeAlias = Mapping[str, str]
Answer: TypeAlias = Callable[[Query], Page]
Post: TypeAlias = Callable[[Request], Page]


def words(status: int, body: Mapping[str, object]) -> Page:
    """Return a page of JSON."""
    return Page(status, json.dumps(body, indent=1).encode())


class Lock(NamedTuple):
    """What asks for bearer tokens.

    Args:
        open_pages: paths that need none.
        callers: returns whose tokens are good now.
    """

    open_pages: Collection[str]
    callers: Callable[[], Callers]

    def admits(self, path: str, authorization: str | None) -> bool:
        """Whether a request with this Authorization header may see a page."""
        return path in self.open_pages or self.callers().of(authorization) is not None


class Pages:
    """Serves pages until it is closed.

    Args:
        host: address to bind; `::` is every address of this machine.
        port: to bind.
        pages: by path; called in threads of their own.
        lock: asks for tokens; None where everybody may see every page.
        posts: what may be sent there with POST, by path; it asks for tokens itself.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        pages: Mapping[str, Answer],
        lock: Lock | None = None,
        posts: Mapping[str, Post] | None = None,
    ) -> None:
        self._server = _Server((host, port), pages, lock, posts or {})
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="pages", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it serves."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Serve nothing any more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """A thread for each connection, of which there are a few at most: the oldest makes room."""

    daemon_threads = True
    request_queue_size = 128
    """Connections that wait to be accepted: of those beyond it each loses a second or more."""

    def __init__(
        self,
        address: tuple[str, int],
        pages: Mapping[str, Answer],
        lock: Lock | None,
        posts: Mapping[str, Post],
    ) -> None:
        self.pages = pages
        self.lock = lock
        self.posts = posts
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
        self._reply(self._page())

    def do_HEAD(self) -> None:
        self._reply(self._page(), bare=True)

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        post = self.server.posts.get(self.path)
        number = size.isascii() and size.isdigit() and len(size) <= 9  # int() of more may raise
        if post is None or not number or int(size) > MAX_BODY:
            self.close_connection = True  # the body stays unread
            error = f"send at most {MAX_BODY} bytes, with Content-Length"
            if post is None:
                error = f"nothing can be sent to {self.path:.100}"
            self._reply(words(404 if post is None else 413, {"error": error}))
            return
        self._reply(post(Request(self.client_address[0], self.headers, self.rfile.read(int(size)))))

    def _page(self) -> Page:
        path, _, query = self.path.partition("?")
        lock = self.server.lock
        if lock is not None and not lock.admits(path, self.headers.get("Authorization")):
            return words(401, {"error": "this page needs a token: Authorization: Bearer TOKEN"})
        answer = self.server.pages.get(path)
        if answer is None:
            known = ", ".join(self.server.pages)
            return words(404, {"error": f"no page {path:.100}; see {known}"})
        return answer(dict(parse_qsl(query)))

    def _reply(self, page: Page, bare: bool = False) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str(len(page.body)))
        for name, value in page.headers.items():
            self.send_header(name, value)
        if page.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Bearer realm="zstreamer"')
        self.end_headers()
        if not bare:
            self.wfile.write(page.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        log.debug(format, *args)
