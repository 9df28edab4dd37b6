"""One HTTP/1.1 connection of the gevent server: one request at a time, answers in order.

    socket ── recv ──> receiver ── take ──> app ── start_response, write ──> socket

A greenlet serves it. One watcher waits for the socket as long as the connection lasts: while a
request is being answered, it tells that the client hangs up. Deadlines cost a request nothing: the
server looks at those of all connections now and then.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gevent import get_hub, getcurrent

from zstreamer.client.green import give_up
from zstreamer.web.api import problem
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.steps import Request, Response
from zstreamer.web.cancel_on_disconnect import has_gone, peek
from zstreamer.web.http.environ import Environs
from zstreamer.web.http.response_head import CLOSE, head
from zstreamer.web.http.wsgi_response import Answer, Gone

if TYPE_CHECKING:
    from zstreamer.web.http.pywsgi import Server

log = logging.getLogger(__name__)

READ = 1

PIECE = 64 * 1024
"""Bytes of a body that are read at once."""

FIRST = 8 * 1024
"""Bytes that are read at once of what comes between two requests: however many requests they hold,
all are kept in memory."""

LEAST_RATE = 64 * 1024
"""Bytes a second of a body that lengthen the time it may take."""

LINGER = 2.0
"""Seconds for which a refused client may go on sending: closing at once would have the kernel
reset the connection, and the client might never read why."""

MOST_IGNORED = 16 * 1024 * 1024
"""Bytes that it may send meanwhile."""


class GreenConnection:
    """Serves one connection until it ends.

    Args:
        server: its limits, clock and app.
        connection: a gevent socket.
        address: of the client.

    Attributes:
        deadline: when `overdue` is to be called, by the server's clock.
        greenlet: that serves it.
        gone: the client has hung up amid a request.
    """

    def __init__(self, server: Server, connection: Any, address: tuple[str, int]) -> None:
        self.deadline = server.clock + server.bounds.keep_alive
        self.greenlet = getcurrent()
        self.gone = False
        self._server = server
        self._socket = connection
        self._own = connection._sock  # below gevent's: it never waits
        self._hub = get_hub()
        self._watcher = self._hub.loop.io(connection.fileno(), READ)
        self._waits = False
        self._works = False
        self._receiver = Environs(self, server.bounds.max_body, server.place, address)
        self._requests: deque[tuple[dict[str, object], bytes]] = deque()
        self._refusal: Response | None = None
        self._read_by = math.inf
        self._expected = False
        self._late = False
        self._held = 0

    def run(self) -> None:
        """Serve until either side has had enough."""
        try:
            while self._read() and self._answer_all():
                self._rest()
        except (OSError, Gone):
            log.debug("a client has gone")
        finally:
            self._watcher.stop()
            self._watcher.close()
            self._receiver.close()
            self._hold(-self._held)

    def overdue(self) -> None:
        """The deadline has passed: tell a slow sender, leave an idle or stuck client."""
        self._late = self._receiver.receiving and not self._works
        with suppress(OSError):  # closed already
            # What the greenlet waits for ends as if the client had closed.
            self._socket.shutdown(socket.SHUT_RD if self._late else socket.SHUT_RDWR)

    def drain(self) -> None:
        """Close the connection if nothing is open on it; otherwise it is closed when it is done."""
        if not (self._works or self._receiver.receiving or self._refusal or peek(self._own)):
            self.overdue()

    # What the receiver says

    def begun(self) -> None:
        """A request must come in time."""
        self._read_by = self._server.clock + self._server.bounds.read_timeout

    def expects(self) -> None:
        """The client waits for a word before it sends the body."""
        self._expected = True

    def grew(self, size: int) -> None:
        """A body is held in memory, of which all connections together have so much."""
        self._hold(size)
        self._read_by += size / LEAST_RATE
        if self._server.held > self._server.most_held:
            self._receiver.refuse(503, "too many large requests are open at once; try again")

    def take(self, request: Request, connection: bytes) -> None:
        """Keep a request until those before it are answered."""
        self._requests.append((self._receiver.environ(request), connection))

    def refuse(self, status: int, detail: str = "") -> None:
        """Answer for what cannot be read, once what came before it is answered."""
        self._refusal = problem.response(Refused(status, detail))

    # From one request to the next

    def _read(self) -> bool:
        """Wait for bytes and read them; whether the connection goes on."""
        data = self._receive()
        late = self._late and self._receiver.receiving
        if data:
            self._receiver.feed(data)
        elif late:
            self._receiver.refuse(408)
        return bool(data) or late

    def _receive(self) -> bytes:
        while True:
            self._wait()
            with suppress(BlockingIOError):
                data: bytes = self._own.recv(PIECE if self._receiver.receiving else FIRST)
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
        while self._requests:
            environ, connection = self._requests.popleft()
            answer = Answer(self, environ, connection)
            self.deadline = math.inf  # the call's own budget ends it
            self._works = True
            began = time.monotonic()
            answer.run(self._server.app)
            self._works = False
            if self._server.log_requests:
                log.info("%s in %.4f s", answer, time.monotonic() - began)
            if answer.connection is CLOSE:
                return False
        if self._refusal is None:
            return True
        self._turn_away(self._refusal)
        return False

    def _rest(self) -> None:
        """Wait for a request, or for the rest of one."""
        receiving = self._receiver.receiving
        if self._held:
            self._hold((self._receiver.size if receiving else 0) - self._held)
        if self._expected and receiving:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expected = False
        limit = self._server.clock + self._server.bounds.keep_alive
        self.deadline = self._read_by if receiving else limit

    def _turn_away(self, response: Response) -> None:
        self.send(head(response, self._server.date, CLOSE) + response.body)
        self._socket.shutdown(socket.SHUT_WR)
        self.deadline = self._server.clock + LINGER
        left = MOST_IGNORED
        while left > 0 and (data := self._receive()):
            left -= len(data)

    def _hold(self, size: int) -> None:
        self._held += size
        self._server.held += size

    # What an answer asks for

    @property
    def date(self) -> bytes:
        """The Date header."""
        return self._server.date

    @property
    def ends(self) -> bool:
        """No further request is answered on it."""
        return self._server.draining

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
            self.deadline = self._server.clock + self._server.bounds.write_timeout
            data = data[self._socket.send(data) :]
        self.deadline = math.inf
