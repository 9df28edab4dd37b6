"""The models of a cluster as a WSGI app, and what an app of one's own wants around a client.

    gunicorn -k zstreamer.web.gunicorn.Worker zstreamer.web.wsgi:app   # ZSTREAMER_BROKER says where
    DispatcherMiddleware(flask_app, {"/models": App(client)})          # beside one's own pages

An app of one's own makes its `zstreamer.Client` where it is imported: each process, whether it was
forked before or after, and whether gevent patches it or not, connects at its first call.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cache, lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from zstreamer.client.client import Client
from zstreamer.config import GatewayConfig
from zstreamer.errors import Cancelled, ZStreamerError
from zstreamer.metrics import ClientCollector
from zstreamer.system import native
from zstreamer.tracing.context import Under
from zstreamer.web.api import problem
from zstreamer.web.api.interface import Interface
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.steps import Look, Order, Predict, Request, Response, Step
from zstreamer.web.backend import configured, guard, limits
from zstreamer.web.cancel_on_disconnect import CancelOnDisconnect
from zstreamer.web.directory import Directory
from zstreamer.web.http.response_head import status_line
from zstreamer.web.operator import Operator
from zstreamer.web.tenants import ByTenant

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class App:
    """Answers HTTP requests with what models behind a broker make of them.

    Works in any WSGI server, with threads or under gevent; may be made before a fork. A caller
    that hangs up takes its items out of all queues under `zstreamer.web.gunicorn.Worker` and
    gunicorn's gevent workers; elsewhere its budget does.

    Args:
        to: the brokers' client addresses, with commas between; a client to share; or the whole
            configuration of a gateway. Where None, ZSTREAMER_* variables and the file of
            ZSTREAMER_CONFIG say it.

    Raises:
        ConfigError: a setting has no usable value.

        >>> App("tcp://10.0.0.5:7787")
        >>> App(GatewayConfig(broker=("tcp://10.0.0.5:7787",), max_body="1MiB", timeout=5))
    """

    def __init__(self, to: str | Client | GatewayConfig | None = None) -> None:
        config = configured(to.addresses if isinstance(to, Client) else to)
        header = config.tenant_header or ""
        token = config.operator_token
        self._interface = Interface(limits(config), config.model, guard(config), header, token)
        self._operator = Operator(config.broker_url, token)
        self._directory = Directory(
            config.broker,
            keys=(to.credentials or "") if isinstance(to, Client) else config.keys or "",
        )
        self._read_timeout = config.read_timeout
        first = to if isinstance(to, Client) else _client(config)
        collector = ClientCollector(first, registry=self._interface.registry)

        def make(tenant: str) -> Client:
            client = _client(config, tenant)
            collector.add(client)
            return client

        def let_go(client: Client) -> None:
            client.close()
            collector.retire(client)

        self._clients = ByTenant(first, make, let_go)
        self._serve = CancelOnDisconnect(self._answer)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as WSGI servers ask for it."""
        return self._serve(environ, start_response)

    def close(self) -> None:
        """Close this process's connections to the brokers, a shared client's too."""
        for client in self._clients.all():
            client.close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return _start(self._response(environ), environ, start_response)

    def _response(self, environ: WSGIEnvironment) -> Response:
        try:
            body = self._body(environ)
        except Refused as refusal:
            return self._interface.refuse(refusal)
        method, path, query = (environ[name] for name in _LINE)
        # What WSGI calls text is bytes, each a character of Latin-1.
        path = path if path.isascii() else path.encode("latin-1").decode(errors="replace")
        request = Request(method, path, query, lambda name: environ.get(_variable(name)), body)
        step = self._interface.begin(request)
        while not isinstance(step, Response):
            step = self._follow(step)
        return step

    def _follow(self, step: Predict | Look | Order) -> Step:
        try:
            answer: Any = self._ask(step)
        except ZStreamerError as error:
            return step.failed(error)
        except BaseException:
            step.failed(Cancelled("the caller disconnected"))
            raise
        return step.answered(answer)

    def _ask(self, step: Predict | Look | Order) -> object:
        if isinstance(step, Look):
            if step.wait:
                time.sleep(step.wait)
            return self._directory.get(step.oldest)
        if isinstance(step, Order):
            return self._operator.give(step.action, step.name)
        with Under(step.trace):
            return self._clients.of(step.tenant).predict(
                step.items,
                model=step.model,
                timeout=step.timeout,
                priority=step.priority,
                return_exceptions=step.return_exceptions,
            )

    def _body(self, environ: WSGIEnvironment) -> bytes:
        """Read the whole body; raises `Refused` where it is too long, too slow or broken off."""
        size = _size(environ)
        if size == 0:
            return b""
        most = self._interface.limits.max_body
        if size is not None and size > most:
            raise Refused(413, f"the body has {size} bytes; {most} are taken")
        body = self._read(environ["wsgi.input"], most + 1 if size is None else size)
        if size is None and len(body) > most:
            raise Refused(413, f"the body has more than {most} bytes")
        if size is not None and len(body) < size:
            raise Refused(400, f"the body ended after {len(body)} of {size} bytes")
        return body

    def _read(self, stream: Any, size: int) -> bytes:
        if isinstance(stream, BytesIO) or not native.patched():
            return _read(stream, size)
        import gevent

        # gunicorn waits for a slow sender as long as it likes; with threads, servers have limits.
        with gevent.Timeout(self._read_timeout, Refused(408)):
            return _read(stream, size)


_LINE = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING")


class Problems:
    """Wraps a WSGI app: errors of zstreamer that it raises become problem documents.

    Frameworks that catch all errors themselves want a handler instead: for Flask there is
    `zstreamer.web.flask.problem`, for others `zstreamer.web.api.problem.response`.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as WSGI servers ask for it."""
        try:
            return self._app(environ, start_response)
        except ZStreamerError as error:
            response = problem.response(error)
        return _start(response, environ, start_response)


def _client(config: GatewayConfig, tenant: str = "") -> Client:
    keys = config.keys or ""
    return Client(config.broker, connect_timeout=config.connect_timeout, keys=keys, tenant=tenant)


def _start(
    response: Response, environ: WSGIEnvironment, start_response: StartResponse
) -> list[bytes]:
    if environ["REQUEST_METHOD"] == "HEAD":
        response = response.bare()
    length = ("content-length", str(response.length))
    start_response(status_line(response.status), [*response.headers, length])
    return [response.body]


@lru_cache(1024)
def _variable(name: str) -> str:
    """The name that a header has in an environ."""
    variable = name.upper().replace("-", "_")
    return variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}"


def _size(environ: WSGIEnvironment) -> int | None:
    """How many bytes of body follow; None where only their end tells."""
    length = environ.get("CONTENT_LENGTH")
    if length:
        if not (length.isascii() and length.isdecimal()):
            raise Refused(400, f"Content-Length must be a whole number, not {length!r:.50}")
        return int(length)
    if "HTTP_TRANSFER_ENCODING" not in environ:
        return 0
    if not environ.get("wsgi.input_terminated"):
        raise Refused(411, "this server reads no chunked bodies; send Content-Length")
    return None


def _read(stream: Any, size: int) -> bytes:
    try:
        body: bytes = stream.read(size)
    except OSError as error:
        raise Refused(400, f"the body ended early: {error}") from error
    return body


@cache
def _configured() -> App:
    return App()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The app that ZSTREAMER_* variables describe, which are read at the first request."""
    return _configured()(environ, start_response)
