"""The servers by themselves: handlers that read a request and answer every one with the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from flask import Flask

BODY = b'["nothing"]'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]

flask = Flask(__name__)


@flask.post("/stream")
def stream() -> bytes:
    """Do nothing."""
    return BODY


def wsgi(
    environ: dict[str, Any], start_response: Callable[..., Callable[[bytes], object]]
) -> Iterable[bytes]:
    """Answer by WSGI."""
    environ["wsgi.input"].read()
    start_response("200 OK", HEADERS)
    return [BODY]


ASGI_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer by ASGI."""
    if scope["type"] != "http":
        raise RuntimeError("only requests are answered here")
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": ASGI_HEADERS})
    await send({"type": "http.response.body", "body": BODY})
