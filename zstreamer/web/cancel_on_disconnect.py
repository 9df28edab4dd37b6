"""Callers that hang up: calls that a greenlet makes for one are cancelled.

    every LOOK seconds, for each request that is being answered:
        has the other side closed?  ──>  the calls that its greenlet waits for end with `Cancelled`

So no model works for somebody who has gone. A look is one system call for a connection, and most
requests are answered before the first; a watcher for each would cost all of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from zstreamer.system import native

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOK = 0.25
"""Seconds from one look to the next."""


def peek(connection: Any) -> bytes | None:
    """Return a byte that waits to be read from a gevent socket, and leave it there.

    Empty where the other side has closed, None where there is nothing now.
    """
    own = getattr(connection, "_sock", connection)  # below gevent's, which would wait
    try:
        found: bytes = own.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
    return found


def has_gone(connection: Any) -> bool:
    """Whether the other side of a gevent socket has closed.

    It has not where bytes wait to be read, such as the next request of a client that does not
    wait for answers.
    """
    return peek(connection) == b""


class CancelOnDisconnect:
    """Wraps a WSGI app that gunicorn's gevent workers serve, and passes everything on.

    Elsewhere it does nothing: `zstreamer.web.gunicorn.Worker` looks by itself, and where a server
    does not tell what its connections are, a call's own budget ends it.

    Args:
        app: watched until it returns; an answer that it yields later is not.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._open: dict[object, object] = {}
        self._looks = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        connection = environ.get("gunicorn.socket")
        if connection is None or "zstreamer.watched" in environ or not native.patched():
            return self._app(environ, start_response)
        if hasattr(connection, "pending"):  # below TLS, bytes say nothing about requests
            return self._app(environ, start_response)
        from gevent import getcurrent

        caller = getcurrent()
        self._open[caller] = connection
        if not self._looks:
            self._start()
        try:
            return self._app(environ, start_response)
        finally:
            self._open.pop(caller, None)  # wrapped twice, it would be gone already

    def _start(self) -> None:
        import gevent

        self._looks = True
        gevent.spawn(self._look, gevent.sleep)

    def _look(self, sleep: Callable[[float], None]) -> None:
        from zstreamer.client.green import give_up

        while self._open:
            sleep(LOOK)
            give_up([caller for caller, its in self._open.items() if has_gone(its)])
        self._looks = False
