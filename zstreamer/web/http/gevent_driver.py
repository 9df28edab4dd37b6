"""Connections of a gevent server for WSGI apps.

    socket ── recv ──> core ── next ──> environ ──> app ── start_response, write ──> socket

A greenlet serves each connection. One watcher waits for the socket as long as the connection lasts:
while a request is being answered, it tells that the client hangs up.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
from gevent import get_hub, getcurrent
from gevent.pool import Pool
from gevent.server import StreamServer

from zstreamer.client.green import give_up
from zstreamer.web.api import problem
from zstreamer.web.api.problem import Refused
from zstreamer.web.cancel_on_disconnect import has_gone, peek
from zstreamer.web.http.connection import Connection, Overdue
from zstreamer.web.http.environ import Environ, Environs, HeaderRules
from zstreamer.web.http.receiver import Received
from zstreamer.web.http.response_head import CLOSE, head
from zstreamer.web.http.shared import LOOK, Shared
from zstreamer.web.http.wsgi_response import Answer, Gone

log = logging.getLogger(__name__)

READ = 1

PIECE = 64 * 1024
"""Bytes of a body that are read at once."""

FIRST = 8 * 1024
"""Bytes that are read at once of what comes between two requests: however many requests they hold,
all are kept in memory."""


class Application:
    """What a server serves; a base class for what a host such as gunicorn adds.

    Args:
        app: any WSGI app; runs in greenlets.
        base: of all environs.
        rules: which headers are taken.
    """

    def __init__(self, app: Any, base: Environ, rules: HeaderRules) -> None:
        self.app = app
        self.base = base
        self.rules = rules

    def answer(self, answer: Answer, request: Received, environ: Environ) -> None:  # noqa: ARG002
        """Have the app answer one request."""
        answer.run(self.app)

    def failed(self, environ: Environ, error: BaseException) -> None:
        """The app has raised what is not an error of zstreamer."""
        log.error("an app failed path=%r", environ["PATH_INFO"], exc_info=error)

    def refused(self, client: str, refusal: Refused) -> None:
        """A request was refused before the app saw it."""


class GeventConnection:
    """Serves one connection until it ends.

    Args:
        shared: what all connections share.
        app: what is served.
        connection: a gevent socket.
        environs: makes the requests' environs.

    Attributes:
        greenlet: that serves it.
        gone: the client has hung up amid a request.
    """

    def __init__(
        self, shared: Shared, app: Application, connection: Any, environs: Environs
    ) -> None:
        self.greenlet = getcurrent()
        self.gone = False
        self._shared = shared
        self._app = app
        self._socket = connection
        self._own = connection._sock  # below gevent's: it never waits
        self._environs = environs
        self._core = Connection(shared)
        self._hub = get_hub()
        self._watcher = self._hub.loop.io(connection.fileno(), READ)
        self._waits = False
        self._stuck_by: float | None = None  # while the client does not take its answer

    @property
    def deadline(self) -> float:
        """When `overdue` is to be called."""
        return self._core.deadline if self._stuck_by is None else self._stuck_by

    def run(self) -> None:
        """Serve until either side closes the connection."""
        try:
            while self._read() and self._answer_all():
                if interim := self._core.interim():
                    self.send(interim)
        except (OSError, Gone):
            log.debug("a client has gone")
        finally:
            self._watcher.stop()
            self._watcher.close()
            self._core.lost()

    def overdue(self) -> None:
        """The deadline has passed: tell a slow sender, leave an idle or stuck client."""
        if self._stuck_by is None:
            verdict = self._core.overdue()
            if verdict is not Overdue.WAIT:
                self._shut(socket.SHUT_RD if verdict is Overdue.ANSWER else socket.SHUT_RDWR)
        else:
            self._shut(socket.SHUT_RDWR)

    def drain(self) -> None:
        """Close the connection if nothing is open on it; otherwise it is closed when it is done."""
        if self._core.idle and not peek(self._own):
            self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with suppress(OSError):  # closed already
            # What the greenlet waits for ends as if the client had closed.
            self._own.shutdown(how)

    # From one request to the next

    def _read(self) -> bool:
        """Wait for bytes and read them; whether there is something to do."""
        core = self._core
        data = self._receive(PIECE if core.receiving else FIRST)
        if data:
            core.receive(data)
        return bool(data) or core.waiting  # what was overdue is refused

    def _receive(self, size: int) -> bytes:
        while True:
            self._wait()
            with suppress(BlockingIOError):
                data: bytes = self._own.recv(size)
                return data

    def _wait(self) -> None:
        """Let others run until there is something to read."""
        if not self._watcher.active:
            self._watcher.start(self._readable)
        self._waits = True
        while self._waits:
            self._hub.switch()

    def _readable(self) -> None:
        """In the hub: bytes have come, or the client has hung up."""
        if self._waits:
            self._waits = False
            self.greenlet.switch()
        else:
            self._watcher.stop()  # the next request can wait; it would be told of again and again
            self.gone = has_gone(self._own)
            if self.gone:
                give_up((self.greenlet,))

    def _answer_all(self) -> bool:
        """Answer what has been read; whether the connection goes on."""
        core = self._core
        while (following := core.next()) is not None:
            if isinstance(following, Refused):
                self._turn_away(following)
                return False
            try:
                environ = self._environs.of(following)
            except Refused as refusal:
                self._turn_away(refusal)
                return False
            environ["gunicorn.socket"] = self._socket
            answer = Answer(self, environ, core.connection)
            self._app.answer(answer, following, environ)
            if not core.answered(answer.connection):
                return False
        return True

    def _turn_away(self, refusal: Refused) -> None:
        response = problem.response(refusal)
        self._app.refused(self._environs.client, refusal)
        self.send(head(response, self._shared.date, CLOSE) + response.body)
        self._core.answered(CLOSE)
        self._core.finish()
        self._socket.shutdown(socket.SHUT_WR)
        while (data := self._receive(PIECE)) and self._core.receive(data):
            pass  # until it closes, is overdue, or has sent too much

    # What an answer asks for

    @property
    def date(self) -> bytes:
        """The Date header."""
        return self._shared.date

    @property
    def ends(self) -> bool:
        """No further request is answered on it."""
        return self._shared.closes

    def failed(self, environ: Environ, error: BaseException) -> None:
        """An app has raised what is not an error of zstreamer."""
        self._app.failed(environ, error)

    def send(self, data: bytes) -> None:
        """Send all of it; raises Gone where the client does not take it in time."""
        try:
            sent = self._send_some(data)
            if sent < len(data):
                self._send_rest(memoryview(data)[sent:])
        except OSError as error:
            raise Gone from error

    def _send_some(self, data: bytes) -> int:
        try:
            sent: int = self._own.send(data)
        except BlockingIOError:
            return 0
        return sent

    def _send_rest(self, data: memoryview) -> None:
        while data:
            self._stuck_by = self._shared.now + self._shared.bounds.write_timeout
            data = data[self._socket.send(data) :]
        self._stuck_by = None


class TlsConnection(GeventConnection):
    """The same over TLS, where only gevent's own socket can read and write.

    A hang-up is not seen while a request is being answered: bytes that wait say nothing.
    """

    def _receive(self, size: int) -> bytes:
        try:
            data: bytes = self._socket.recv(size)
        except ssl.SSLError:  # broken off, without the end that TLS asks for
            return b""
        return data

    def _send_some(self, _data: bytes) -> int:
        return 0

    def drain(self) -> None:
        """Close the connection if nothing is open on it."""
        if self._core.idle:
            self._shut(socket.SHUT_RDWR)


class GeventServer(StreamServer):  # type: ignore[misc]  # gevent ships no types
    """Serves an app on a listening socket; gevent must have patched the program.

    Args:
        listener: listens.
        app: what is served.
        shared: what its connections share.
        max_connections: further ones wait in the system's backlog, and idle ones are closed soon.
        wrap: makes a TLS socket of a connection, without the handshake; None for none.
    """

    def __init__(
        self,
        listener: Any,
        app: Application,
        shared: Shared,
        max_connections: int,
        wrap: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(listener, spawn=Pool(max_connections))
        self._app = app
        self._shared = shared
        self._wrap = wrap
        self._inet = listener.family != socket.AF_UNIX

    def handle(self, connection: Any, address: Any) -> None:
        """Serve one connection, in a greenlet of its own."""
        server = None
        with suppress(OSError):  # it may be over already
            if self._inet:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server = connection.getsockname()[:2]
        client = address[:2] if self._inet else None
        environs = Environs(self._app.base, self._app.rules, client, server)
        if self._wrap is None:
            self._serve(GeventConnection(self._shared, self._app, connection, environs))
        else:
            self._handshake(connection, environs)

    def _handshake(self, connection: Any, environs: Environs) -> None:
        assert self._wrap is not None  # noqa: S101  # tells mypy
        with suppress(OSError), self._wrap(connection) as secure:
            with gevent.Timeout(self._shared.bounds.read_timeout, OSError("no handshake")):
                secure.do_handshake()
            self._serve(TlsConnection(self._shared, self._app, secure, environs))

    def _serve(self, connection: GeventConnection) -> None:
        self._shared.connections.add(connection)
        try:
            connection.run()
        finally:
            self._shared.connections.discard(connection)


def look_after(shared: Shared, full: Callable[[], bool]) -> None:
    """Look at the connections every `LOOK` seconds, without end; run it in a greenlet.

    Args:
        shared: theirs.
        full: whether no further connection can be taken.
    """
    while True:
        gevent.sleep(LOOK)
        shared.look(time.monotonic(), time.time(), full())
        for each in list(shared.connections):
            if isinstance(each, GeventConnection) and each.gone:
                # What it has begun since is wanted no more than what it had begun.
                give_up((each.greenlet,))
