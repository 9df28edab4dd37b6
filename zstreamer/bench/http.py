"""A URL, as something to call: HTTP/1.1 on connections that are kept."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from zstreamer.bench.load import CallFailed
from zstreamer.setting import ConfigError

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Url:
    """Posts items to the v1 route of a gateway, or to any URL that takes its bodies.

    Args:
        url: http or https; without a path it means the model's route.
        model: its name.
        items: what is sent, again and again; JSON must hold them.
        per_call: items of one request.
        timeout: seconds that a request may take.
        headers: further ones, as ``name: value``.

    Raises:
        ConfigError: the URL or an item makes no sense.
    """

    def __init__(
        self,
        url: str,
        model: str,
        items: Sequence[object],
        per_call: int,
        timeout: float,
        headers: Sequence[str] = (),
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no URL: give http://HOST:PORT or https://HOST:PORT")
        secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if secure else 80)
        self._tls = ssl.create_default_context() if secure else None
        path = parts.path if len(parts.path) > 1 else f"/v1/models/{model}:predict"
        path += f"?{parts.query}" if parts.query else ""
        lines = [f"POST {path} HTTP/1.1", f"host: {parts.netloc}", *headers]
        lines += ["content-type: application/json", "content-length: %d"]
        self._head = "\r\n".join(lines) + "\r\n\r\n"
        self._timeout = timeout
        ring = itertools.islice(itertools.cycle(items), per_call * len(items))
        bodies = [self._request(list(each)) for each in _cut(list(ring), per_call)]
        self._requests = itertools.cycle(bodies)
        self._idle: list[Connection] = []

    def _request(self, items: list[object]) -> bytes:
        try:
            body = json.dumps({"instances": items}, ensure_ascii=False).encode()
        except TypeError as error:
            raise ConfigError(f"an item is not JSON: {error}") from None
        return (self._head % len(body)).encode() + body

    async def call(self) -> None:
        """See `Target`."""
        try:
            status = await asyncio.wait_for(self._ask(next(self._requests)), self._timeout)
        except TimeoutError:
            raise CallFailed("timeout") from None
        except asyncio.TimeoutError:  # its own class before Python 3.11
            raise CallFailed("timeout") from None
        except (OSError, EOFError, ValueError) as error:
            raise CallFailed("connection") from error
        if status >= 400:
            raise CallFailed(f"http_{status}")

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _ask(self, request: bytes) -> int:
        while self._idle:  # one that was kept may have been closed meanwhile
            try:
                return await self._exchange(self._idle.pop(), request)
            except (EOFError, ConnectionError):
                continue
        connection = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        return await self._exchange(connection, request)

    async def _exchange(self, connection: Connection, request: bytes) -> int:
        reader, writer = connection
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head.split(None, 2)[1])
            await _body(reader, head)
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append(connection)
        return status


async def _body(reader: asyncio.StreamReader, head: bytes) -> None:
    fields = dict(line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"chunked" not in fields.get(b"transfer-encoding", b""):
        await reader.readexactly(int(fields.get(b"content-length", b"0")))
        return
    size = 1
    while size:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        await reader.readexactly(size + 2)


def _cut(items: list[object], size: int) -> list[list[object]]:
    return [items[i : i + size] for i in range(0, len(items), size)]
