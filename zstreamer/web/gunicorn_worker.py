"""gunicorn's worker process on the gevent driver: what its users expect, around `GeventServer`.

gunicorn ── sockets, settings, signals ──> Worker ──> GeventServer ──> app
gunicorn <── heartbeat, exit code ──────── Worker <── access log, hooks ─┘
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from functools import partial
from typing import Any

import gevent
from gevent.socket import wait_read
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.http.wsgi import base_environ
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

from zstreamer.web.api.problem import Refused
from zstreamer.web.backend import configured
from zstreamer.web.http.environ import Environ, HeaderRules
from zstreamer.web.http.gevent_driver import Application, GeventServer, look_after
from zstreamer.web.http.receiver import Received
from zstreamer.web.http.shared import Bounds, Shared
from zstreamer.web.http.wsgi_response import Answer

HEARTBEAT = 1.0
"""Seconds between two signs of life to gunicorn's parent process."""

_NOT_SERVED = {"proxy_protocol": (False, "off"), "protocol": ("http",)}
"""Settings of gunicorn whose other values this worker cannot serve, and the values that it can."""


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    """Serves a WSGI app in greenlets, as gunicorn's gevent worker does, for less CPU a request.

    A request's body is read whole before the app is called, so a slow sender costs a connection
    and no greenlet of the app's; ZSTREAMER_MAX_BODY and ZSTREAMER_READ_TIMEOUT bound it. Where a
    client hangs up, the calls that its request waits for are cancelled.

    Attributes:
        write_timeout: seconds in which a client must take some of its answer.
    """

    write_timeout = 30.0
    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check(self.cfg)
        self._quits = False

    def run(self) -> None:
        """Serve until told to stop, then until the open requests are answered."""
        cfg = self.cfg
        self._shared = Shared(self._bounds(), time.monotonic(), time.time())
        self._shared.closes = not cfg.keepalive
        app = _GunicornApp(self)
        wrap = _wrapping(cfg) if cfg.is_ssl else None
        servers = []
        for each in self.sockets:
            each.setblocking(True)
            server = GeventServer(each, app, self._shared, self.worker_connections, wrap)
            if cfg.workers > 1:
                server.max_accept = 1  # so that the processes share what comes
            server.start()
            servers.append(server)
        looking = gevent.spawn(look_after, self._shared, lambda: any(_full(s) for s in servers))
        while self.alive:
            self.notify()
            self._rest()
        self._stop(servers)
        looking.kill()
        if self._quits:
            cfg.worker_int(self)

    def handle_quit(self, _signal: int, _frame: object) -> None:
        """End without waiting for open requests."""
        self._quits = True
        self.alive = False

    def retire(self) -> None:
        """Count a request; stop after it if there were `max_requests`."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
            self._shared.closes = True
            os.write(self.PIPE[1], b".")

    def _bounds(self) -> Bounds:
        told = configured(None)
        return Bounds(
            max_body=told.max_body,
            keep_alive=self.cfg.keepalive or told.read_timeout,
            read_timeout=told.read_timeout,
            write_timeout=self.write_timeout,
        )

    def _rest(self) -> None:
        """Wait for the next heartbeat, or a signal."""
        try:
            wait_read(self.PIPE[0], HEARTBEAT, TimeoutError())
            os.read(self.PIPE[0], 4096)
        except TimeoutError:
            pass

    def _stop(self, servers: list[GeventServer]) -> None:
        for server in servers:
            server.close()
        self._shared.drain()
        end = time.monotonic() + self.cfg.graceful_timeout
        while any(server.pool for server in servers) and not self._quits:
            left = end - time.monotonic()
            if left <= 0:
                self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
                for server in servers:
                    server.stop(timeout=1)
                return
            self.notify()
            gevent.wait([each for s in servers for each in s.pool], min(left, HEARTBEAT))


class _GunicornApp(Application):
    """The app of a worker, with gunicorn's hooks and access log around each request."""

    def __init__(self, worker: Worker) -> None:
        cfg = self._cfg = worker.cfg
        names = [each.name for each in fields(HeaderRules) if each.name in cfg.settings]
        rules = HeaderRules(**{name: getattr(cfg, name) for name in names})
        base = base_environ(cfg) | {
            "wsgi.multithread": True,  # greenlets take turns amid each other's requests
            "wsgi.url_scheme": "https" if cfg.is_ssl else "http",
            "SCRIPT_NAME": os.environ.get("SCRIPT_NAME", ""),
            "zstreamer.watched": True,
        }
        super().__init__(worker.wsgi, base, rules)
        self._worker = worker
        self._log = worker.log
        self._hooked = worker.log.loglevel <= logging.DEBUG or any(
            cfg.settings[name].get() is not cfg.settings[name].default
            for name in ("pre_request", "post_request")
        )
        self._told = _logs(worker.log)

    def answer(self, answer: Answer, request: Received, environ: Environ) -> None:
        """Have the app answer one request."""
        self._worker.retire()
        if not (self._hooked or self._told):
            answer.run(self.app)
            return
        began = time.perf_counter()
        asked = GunicornRequest(request, environ)
        try:
            if self._hooked:
                self._cfg.pre_request(self._worker, asked)
            answer.run(self.app)
        finally:
            took = timedelta(seconds=time.perf_counter() - began)
            if self._told and answer.status:
                self._log.access(answer, asked, environ, took)
            if self._hooked:
                self._after(asked, environ, answer)

    def failed(self, environ: Environ, error: BaseException) -> None:
        """Log what the app has raised, where gunicorn logs it."""
        words = "Error handling request %s %s"
        self._log.error(words, environ["REQUEST_METHOD"], environ["RAW_URI"], exc_info=error)

    def refused(self, client: str, refusal: Refused) -> None:
        """Log that a request was refused."""
        self._log.warning("Invalid request from ip=%s: %s", client, refusal.detail)

    def _after(self, asked: GunicornRequest, environ: Environ, answer: Answer) -> None:
        try:
            self._cfg.post_request(self._worker, asked, environ, answer)
        except Exception:  # noqa: BLE001  # as gunicorn does
            self._log.exception("Exception in post_request hook")


class GunicornRequest:
    """A request as gunicorn's hooks and its access log see it."""

    def __init__(self, request: Received, environ: Environ) -> None:
        self.method = request.method
        self.uri = str(environ["RAW_URI"])
        self.path = self.uri.partition("?")[0]
        self.query = request.query
        self.fragment = ""
        self.version = (1, 1) if request.version == "1.1" else (1, 0)
        self.scheme = environ["wsgi.url_scheme"]
        self.body = environ["wsgi.input"]
        self.trailers: list[tuple[str, str]] = []
        self.remote_addr = self.peer_addr = (environ["REMOTE_ADDR"], environ["REMOTE_PORT"])
        self.headers = [
            (name.decode("latin-1").upper(), value.decode("latin-1"))
            for name, value in request.headers.items()
        ]


def _check(cfg: Any) -> None:
    """Refuse settings that would silently have no effect; raises HaltServer."""
    for name, served in _NOT_SERVED.items():
        value = cfg.settings[name].get() if name in cfg.settings else served[0]
        if value not in served:
            raise HaltServer(
                f"zstreamer.web.gunicorn.Worker does not support {name}={value!r}: leave it at "
                f"{served[0]!r}, or use gunicorn's own gevent worker"
            )
    protocols = cfg.settings["http_protocols"].get() if "http_protocols" in cfg.settings else ""
    if "h2" in str(protocols):
        raise HaltServer(
            "zstreamer.web.gunicorn.Worker speaks HTTP/1.1 only: leave h2 out of http_protocols, "
            "and have the proxy in front speak HTTP/2"
        )


def _wrapping(cfg: Any) -> Callable[[Any], Any]:
    return partial(
        ssl_context(cfg).wrap_socket,
        server_side=True,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=cfg.suppress_ragged_eofs,
    )


def _logs(log: Any) -> bool:
    """Whether the logger makes something of a request; statsd's counts each."""
    return type(log).access is not Logger.access or getattr(log, "access_log_enabled", True)


def _full(server: GeventServer) -> bool:
    return bool(server.pool.full())
