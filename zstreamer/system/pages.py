"""A few HTTP pages from a thread of their own, for probes, Prometheus and people."""

from __future__ import annotations

import ipaddress
import json
import logging
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from zstreamer.config import stays_on_machine
from zstreamer.keys.bearer import Callers

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 32
"""Connections that are served at once; the broker keeps more descriptors spare."""


MAX_BODY: Final = 4096
"""Bytes that are taken with POST."""

_ANOTHER_NAME: Final = (
    "these pages are served to this machine alone, as localhost or by its address, and Host is "
    "another name; a proxy in front of them must send Host: localhost"
)


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
        gone: whether whoever sent it has hung up since.
    """

    peer: str
    headers: Message
    body: bytes
    gone: Callable[[], bool] = lambda: False


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


def own_name(host: str | None) -> bool:
    """Whether a Host header names this machine as programs on it do, or by an address.

    A page of another site can have its name lead to 127.0.0.1, and would then read what is served
    there; but the browser still sends that site's name. No Host at all is not a browser's.
    """
    if host is None:
        return True
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") <= 1:
        name = name.partition(":")[0]
    name = name.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Pages:
    """Serves pages until it is closed. On loopback it is served under names of loopback alone.

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


class _Open:
    """A connection that is served.

    Attributes:
        socket: of the connection.
        peer: its address.
        asked: whether a request has come on it.
        busy: whether one is being answered.
        since: monotonic seconds of the latest of these.
    """

    __slots__ = ("asked", "busy", "peer", "since", "socket")

    def __init__(self, socket: socket.socket, peer: str) -> None:
        self.socket = socket
        self.peer = peer
        self.asked = self.busy = False
        self.since = time.monotonic()


class _Server(ThreadingHTTPServer):
    """A thread for each connection, of which there are a few at most.

    When there are too many, one makes room: rather one that is not being answered, rather one that
    has asked for nothing yet, and of these the oldest of the peer that has most. So who opens many
    and says nothing does not keep probes out.
    """

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
        self.local = stays_on_machine(f"tcp://{address[0]}:{address[1]}")
        self._open: dict[int, _Open] = {}
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
                self._make_room()
            self._open[id(request)] = _Open(request, client_address[0])
        super().process_request(request, client_address)

    def _make_room(self) -> None:
        peers = Counter(each.peer for each in self._open.values())

        def rank(key: int) -> tuple[bool, bool, int, float]:
            each = self._open[key]
            return each.busy, each.asked, -peers[each.peer], each.since

        ended = self._open.pop(min(self._open, key=rank))
        with suppress(OSError):  # it may have gone by itself
            ended.socket.shutdown(socket.SHUT_RDWR)

    def answering(self, request: Any, busy: bool) -> None:
        """A request has come on a connection, or was answered."""
        with self._opening:
            if (found := self._open.get(id(request))) is not None:
                found.asked, found.busy, found.since = True, busy, time.monotonic()

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
        self._serve(self._page)

    def do_HEAD(self) -> None:
        self._serve(self._page, bare=True)

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        post = self.server.posts.get(self.path)
        number = size.isascii() and size.isdigit() and len(size) <= 9  # int() of more may raise
        if post is None or not number or int(size) > MAX_BODY:
            self.close_connection = True  # the body stays unread
            status, error = 413, f"send at most {MAX_BODY} bytes, with Content-Length"
            if post is None:
                status, error = 404, f"nothing can be sent to {self.path:.100}"
            self._serve(lambda: words(status, {"error": error}))
            return
        body = self.rfile.read(int(size))
        request = Request(self.client_address[0], self.headers, body, self._has_gone)
        self._serve(lambda: post(request))

    def _has_gone(self) -> bool:
        waiting = select.poll()
        waiting.register(self.connection, select.POLLIN)
        try:
            return bool(waiting.poll(0)) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _serve(self, page: Callable[[], Page], bare: bool = False) -> None:
        self.server.answering(self.connection, busy=True)
        try:
            own = not self.server.local or own_name(self.headers.get("Host"))
            self._reply(page() if own else words(421, {"error": _ANOTHER_NAME}), bare)
        finally:
            self.server.answering(self.connection, busy=False)

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
