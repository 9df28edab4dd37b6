"""The models of a cluster as an ASGI 3 app, for uvicorn, hypercorn, granian and all others.

    uvicorn zstreamer.web.asgi:app                     # ZSTREAMER_BROKER says where the broker is
    fastapi_app.mount("/models", App("tcp://10.0.0.5:7787"))

`zstreamer gateway` serves the same without an ASGI server, for about half the CPU time a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import cache
from typing import Any, TypeAlias

from zstreamer.config import GatewayConfig
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.steps import Request, Response
from zstreamer.web.backend import Backend
from zstreamer.web.http.headers import Headers

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class App:
    """Answers HTTP requests with the outputs of models behind a broker.

    A caller that hangs up takes its items out of all queues.

    Args:
        to: the brokers' client addresses, separated by commas, or the whole configuration of a
            gateway; where None, ZSTREAMER_* variables and the file of ZSTREAMER_CONFIG say it.

    Raises:
        ConfigError: a setting has no usable value.

        >>> App("tcp://10.0.0.5:7787")
        >>> App(GatewayConfig(broker=("tcp://10.0.0.5:7787",), max_body="1MiB", timeout=5))
    """

    def __init__(self, to: str | GatewayConfig | None = None) -> None:
        self._backend = Backend(to)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI servers ask for it."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def close(self) -> None:
        """Close the connections to the brokers that the running loop has; lifespan does it too."""
        await self._backend.close()

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        backend = self._backend
        header = Headers.of(scope["headers"]).text

        async def disconnected() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        try:
            most = backend.interface.limits.max_body
            body = await backend.read(_body(receive, header("content-length"), most))
        except ConnectionError:
            return  # nobody is left to be told
        except Refused as refusal:
            response = backend.interface.refuse(refusal)
        except TimeoutError:
            response = backend.interface.refuse(408)
        else:
            query = scope["query_string"].decode("ascii", "replace")
            request = Request(scope["method"], _path(scope), query, header, body)
            response = await backend.answer(request, disconnected)
        with suppress(OSError):  # it may have gone meanwhile
            await _send(send, response)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._backend.client()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._backend.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _body(receive: Receive, announced: str | None, most: int) -> bytes:
    """Read a body.

    Raises:
        ConnectionError: its sender disconnects first.
        Refused: it is too long.
    """
    if announced is not None and announced.isdecimal() and int(announced) > most:
        raise Refused(413)
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Refused(413)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _path(scope: Scope) -> str:
    """The path below what the app is mounted at."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


async def _send(send: Send, response: Response) -> None:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers
    ]
    headers.append((b"content-length", b"%d" % response.length))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


@cache
def _configured() -> App:
    return App()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The app that ZSTREAMER_* variables describe, which are read at the first call."""
    await _configured()(scope, receive, send)
