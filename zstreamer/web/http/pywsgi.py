"""A gevent server for WSGI apps: what `gevent.pywsgi` is for, quicker and with bounds.

    from gevent import monkey
    monkey.patch_all()
    from zstreamer.web.http import pywsgi
    pywsgi.serve(app, "127.0.0.1", 8000)

Answers leave at once (`gevent.pywsgi` leaves Nagle's algorithm on, which costs up to 40 ms for each
answer on a kept connection) and as one packet. Bodies, connections and the time that clients take
are bounded, and where a client hangs up, the calls that its request waits for are cancelled.
"""

from __future__ import annotations

import logging
import resource
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer

from zstreamer.client.green import give_up
from zstreamer.system import native
from zstreamer.web.cancel_on_disconnect import LOOK
from zstreamer.web.http import response_head
from zstreamer.web.http.green import GreenConnection

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

BODIES = 16
"""As many of the largest bodies may be in memory at once, of all connections together."""

CROWDED = 1.0
"""Seconds for which a connection may be idle while all that there may be are open."""


@dataclass(frozen=True)
class Bounds:
    """What clients may take of a server.

    Args:
        max_connections: further ones wait in the system's backlog, and idle ones are closed soon.
        max_body: bytes; a larger body is answered with 413.
        keep_alive: seconds for which a connection may be idle.
        read_timeout: seconds in which a request must come, and a second more for each 64 KiB of
            its body; then it is answered with 408.
        write_timeout: seconds in which a client must take some of its answer.
        grace: seconds that open requests have when the server is told to stop.

    Raises:
        ValueError: one is not positive.
    """

    max_connections: int = 4096
    max_body: int = 64 * 1024 * 1024
    keep_alive: float = 75.0
    read_timeout: float = 30.0
    write_timeout: float = 30.0
    grace: float = 25.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not value > 0:
                raise ValueError(f"{name} must be positive, not {value!r}")


def serve(
    app: WSGIApplication,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    bounds: Bounds = Bounds(),
    backlog: int = 2048,
    log_requests: bool = False,
) -> None:
    """Serve an app until SIGTERM or SIGINT, then until its open requests are answered.

    A second signal ends them. For several processes take gunicorn: see `zstreamer.web.gunicorn`.

    Args:
        app: any WSGI app; runs in greenlets.
        host: address to listen at.
        port: 0 takes a free one, which the log tells.
        bounds: what clients may take.
        backlog: connections that may wait to be accepted.
        log_requests: log a line for each request.

    Raises:
        RuntimeError: gevent has not patched this program.
        OSError: the address cannot be bound.
    """
    _check_patched()
    _allow_files()
    server = Server(app, listen(host, port, backlog), bounds, log_requests)
    handlers = [
        gevent.signal_handler(each, server.drain) for each in (signal.SIGTERM, signal.SIGINT)
    ]
    log.info("serving url=http://%s:%d", f"[{host}]" if ":" in host else host, server.place[1])
    try:
        server.serve_forever(stop_timeout=bounds.grace)
    finally:
        for handler in handlers:
            handler.cancel()


def listen(host: str, port: int, backlog: int = 2048) -> socket.socket:
    """Return a socket that listens; raises OSError, naming the address, where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen at {host}:{port}: {error.strerror}") from None


def _check_patched() -> None:
    if not native.patched():
        raise RuntimeError(
            "gevent has not patched this program, and a call would block all others: begin it "
            "with `from gevent import monkey; monkey.patch_all()`"
        )


def _allow_files() -> None:
    """Allow as many open connections as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Server(StreamServer):  # type: ignore[misc]  # gevent ships no types
    """Serves an app on a listening socket; see `serve`.

    Attributes:
        place: host and port.
        clock: seconds by which deadlines are kept; it stands still while the program does.
        date: the Date header as it is now.
        held: bytes of bodies in memory; beyond `most_held` further ones are refused.
        draining: no connection is kept for a further request.

    Raises:
        RuntimeError: gevent has not patched this program.
    """

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        bounds: Bounds = Bounds(),
        log_requests: bool = False,
    ) -> None:
        _check_patched()
        super().__init__(listener, spawn=Pool(bounds.max_connections))
        self.app = app
        self.bounds = bounds
        self.log_requests = log_requests
        self.place: tuple[str, int] = _place(self.address)
        self.clock = 0.0
        self.date = response_head.date(time.time())
        self.held = 0
        self.most_held = BODIES * bounds.max_body
        self.draining = False
        self._connections: set[GreenConnection] = set()
        self._looking = gevent.spawn(self._look)

    def handle(self, connection: Any, address: Any) -> None:
        """Serve one connection, in a greenlet of its own."""
        if connection.family != socket.AF_UNIX:
            with suppress(OSError):  # it may be over already
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own = GreenConnection(self, connection, _place(address))
        self._connections.add(own)
        try:
            own.run()
        finally:
            self._connections.discard(own)

    def drain(self) -> None:
        """Take nothing new, and stop once all open requests are answered; called again, at once."""
        if self.draining:
            self.pool.kill(block=False)
            return
        self.draining = True
        log.info("stopping connections=%d", len(self._connections))
        self.close()
        self._look_at_all()

    def stop(self, timeout: float | None = None) -> None:
        """Drain for so many seconds at the longest (`Bounds.grace`), then end what is left."""
        self.draining = True
        self.close()
        if not self.pool.join(self.bounds.grace if timeout is None else timeout):
            log.warning("stopped with connections open=%d", len(self._connections))
            self.pool.kill(timeout=1)
        self._looking.kill()

    def _look(self) -> None:
        """Look after the connections now and then."""
        before = time.monotonic()
        while True:
            gevent.sleep(LOOK)
            now = time.monotonic()
            # A program that stood still has not let its clients be quick either.
            self.clock += min(now - before, 2 * LOOK)
            before = now
            self.date = response_head.date(time.time())
            self._look_at_all()

    def _look_at_all(self) -> None:
        # Where none is left for others, a second is long enough to be idle.
        patience = CROWDED if self.pool.full() else self.bounds.keep_alive
        idle = self.clock + self.bounds.keep_alive - patience
        for each in list(self._connections):
            if each.deadline < self.clock:
                each.overdue()
            elif self.draining or each.deadline < idle:
                each.drain()
            if each.gone:  # what it has begun since is wanted no more than what it had begun
                give_up((each.greenlet,))


def _place(address: object) -> tuple[str, int]:
    """Host and port of an address; that of a Unix socket has a path alone, or nothing."""
    return address[:2] if isinstance(address, tuple) else (str(address or ""), 0)
