"""The models of a cluster as an RSGI app, for granian.

    granian --interface rsgi zstreamer.web.rsgi:app    # ZSTREAMER_BROKER says where the broker is

`zstreamer gateway` serves the same without granian, for about half the CPU time a request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from zstreamer.config import GatewayConfig
from zstreamer.web.api.steps import Request
from zstreamer.web.backend import Backend

if TYPE_CHECKING:
    from granian._granian import RSGIHTTPProtocol, RSGIWebsocketProtocol
    from granian.rsgi import Scope


class App:
    """Answers HTTP requests with what models behind a broker make of them.

    A caller that hangs up takes its items out of all queues.

    Args:
        to: as for `zstreamer.web.asgi.App`.

    Raises:
        ConfigError: a setting has no usable value.
    """

    def __init__(self, to: str | GatewayConfig | None = None) -> None:
        self._backend = Backend(to)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the connections to the brokers."""
        loop.run_until_complete(self._backend.close())

    async def __rsgi__(self, scope: Scope, protocol: RSGIHTTPProtocol) -> None:
        """Serve one request."""
        if scope.proto != "http":
            cast("RSGIWebsocketProtocol", protocol).close(403)
            return
        backend = self._backend
        every = scope.headers.get_all  # type: ignore[attr-defined]  # forgotten there

        def header(name: str) -> str | None:
            values: list[str] = every(name)
            return ", ".join(values) if values else None

        try:
            body = await self._body(header("content-length"), header("transfer-encoding"), protocol)
        except ConnectionError:
            return  # nobody is left to be told
        except _TooLong:
            response = backend.interface.refuse(413)
        except TimeoutError:
            response = backend.interface.refuse(408)
        else:
            request = Request(scope.method, scope.path, scope.query_string, header, body)
            response = await backend.answer(request, protocol.client_disconnect)
        headers = response.headers
        if response.left_out:  # otherwise granian counts
            headers = [*headers, ("content-length", str(response.length))]
        protocol.response_bytes(response.status, headers, response.body)

    async def _body(
        self, announced: str | None, encoding: str | None, protocol: RSGIHTTPProtocol
    ) -> bytes:
        most = self._backend.interface.limits.max_body
        if announced is not None and announced.isdecimal():
            if int(announced) > most:
                raise _TooLong
            # Each wait for a thread of granian's costs a fifth of the request.
            return await self._backend.read(_whole(protocol)) if int(announced) else b""
        return await self._backend.read(_pieces(protocol, most)) if encoding else b""


class _TooLong(Exception):
    """A body exceeds the limit."""


async def _whole(protocol: RSGIHTTPProtocol) -> bytes:
    try:
        return await protocol()
    except RuntimeError as error:  # as granian calls it
        raise ConnectionError("the sender has gone") from error


async def _pieces(protocol: RSGIHTTPProtocol, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in protocol:
        parts.append(part)
        size += len(part)
        if size > most:
            raise _TooLong
    return b"".join(parts)


def __getattr__(name: str) -> App:
    """Make `app`, which ZSTREAMER_* variables describe, when a server asks for it."""
    if name == "app":
        return App()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
