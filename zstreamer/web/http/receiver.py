"""What comes in on an HTTP/1.1 connection: bytes in, whole requests and refusals out. No sockets.

    data ── feed ──> llhttp ── on_… ──> Sink: begun · grew · take(request) · refuse(status, why)

llhttp (the parser of Node.js, through httptools) is strict: what two servers might read in two
ways, such as a request with two lengths, is refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

import httptools

from zstreamer.web.api.steps import Request
from zstreamer.web.http.headers import Field, Headers
from zstreamer.web.http.response_head import CLOSE, KEEP

log = logging.getLogger(__name__)

MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers; the same again for a chunked body's framing."""

CHUNK = 32
"""Bytes that a chunk may need for its size and the ends of its lines."""


@dataclass(slots=True)
class Received(Request):
    """A request as it came over HTTP/1.1.

    Args:
        headers: all of them; `header` finds one.
        target: path and query as they came.
        version: "1.1" or "1.0".
    """

    headers: Headers
    target: bytes
    version: str


class Sink(Protocol):
    """Who takes what a `Receiver` makes of the bytes."""

    def begun(self) -> None:
        """The first byte of a request has come."""

    def expects(self) -> None:
        """The client wants a word before it sends the body."""

    def grew(self, size: int) -> None:
        """So many bytes more of a body are held."""

    def take(self, request: Received, connection: bytes) -> None:
        """A whole request has come; connection: the header that its response carries."""

    def refuse(self, status: int, detail: str = "") -> None:
        """The request cannot be read any further, nor can anything behind it."""


class Receiver:
    """Reads the requests of one connection.

    Args:
        sink: takes them.
        max_body: bytes.

    Attributes:
        receiving: a request has begun and is not whole yet.
        size: bytes of its body so far.
        deaf: something was refused, or the connection has ended; nothing more is read.
    """

    def __init__(self, sink: Sink, max_body: int) -> None:
        self.receiving = False
        self.size = 0
        self.deaf = False
        self._sink = sink
        self._max_body = max_body
        self._parser = httptools.HttpRequestParser(self)
        self._fresh = False  # it began with the bytes that are being read now
        self._weigh = False  # a head that ends with them may be too large
        self._in_head = False
        self._head_size = 0
        self._chunks = 0
        self._framing = 0  # bytes of extensions and trailers, as far as they are seen
        self._version = "1.1"
        self._url = b""
        self._headers = Headers()
        self._again: list[Field] = []  # headers whose names had come before
        self._body: list[bytes] = []

    def feed(self, data: bytes | memoryview) -> None:
        """Read some bytes; requests that they complete are taken at once, and nothing is kept."""
        if self.deaf:
            return
        self._fresh = False
        # What begins amid a body and does not end it is body or framing.
        in_body = self.receiving and not self._in_head
        size, chunks = self.size, self._chunks
        self._weigh = self._in_head or len(data) > MAX_HEAD
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:
            log.exception("a request could not be taken")
            self.refuse(500)
        except httptools.HttpParserError as error:
            self.refuse(400, f"this is not an HTTP/1.1 request: {error}")
        if in_body and not self._fresh and self.receiving:
            room = CHUNK * (self._chunks - chunks)
            self._framing += max(0, len(data) - (self.size - size) - room)
            if self._framing > MAX_HEAD:
                self.refuse(431, f"chunk extensions and trailers exceed {MAX_HEAD} bytes")
        if self._in_head and not self._fresh:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                self._refuse_head()

    def refuse(self, status: int, detail: str = "") -> None:
        """Read no further."""
        if not self.deaf:
            self.close()
            self._sink.refuse(status, detail)

    def close(self) -> None:
        """Read no further, and drop what has arrived: nobody counts it any more."""
        self.deaf = True
        self.receiving = self._in_head = False
        self._body = []

    # What the parser says

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self.deaf:
            return
        self.receiving = self._in_head = self._fresh = True
        self.size = self._head_size = self._chunks = self._framing = 0
        self._url = b""
        self._headers = Headers()
        self._sink.begun()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; those behind a chunked body mean nothing here."""
        if self._in_head:
            headers, name = self._headers, name.lower()
            if name not in headers:
                headers[name] = value
            elif name == b"host":
                self.refuse(400, "there are two Host headers; send one")
            else:
                self._again.append((name, value))

    def on_headers_complete(self) -> None:
        """The body follows, unless it is known already to be refused."""
        if self.deaf:
            return
        self._in_head = False
        headers = self._headers
        if self._again:
            headers.join(self._again)
            self._again = []
        self._version = self._parser.get_http_version()
        if self._version not in ("1.1", "1.0"):
            self.refuse(505, f"HTTP/{self._version} is not supported; use HTTP/1.1")
        elif self._version == "1.1" and b"host" not in headers:
            self.refuse(400, "HTTP/1.1 requires a Host header")
        elif int(headers.get(b"content-length", 0)) > self._max_body:
            self.refuse(413)
        elif self._weigh and len(self._url) + sum(map(_size, headers.items())) > MAX_HEAD:
            self._refuse_head()
        elif b"expect" in headers:
            self._sink.expects()

    def on_chunk_header(self) -> None:
        """The size of a chunk has come, with its extensions."""
        self._chunks += 1

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        if self.deaf:
            return
        self._body.append(part)
        self.size += len(part)
        if self.size > self._max_body:
            self.refuse(413)
        else:
            self._sink.grew(len(part))

    def on_message_complete(self) -> None:
        """A whole request is here."""
        # A connection that idles afterwards is not to hold what its last request has brought.
        parts, self._body = self._body, []
        parser = self._parser
        if self.deaf or parser.should_upgrade():
            return
        self.receiving = False
        connection = b"" if self._version == "1.1" else KEEP
        if not parser.should_keep_alive():
            connection = CLOSE
        path, query = _parts(self._url)
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        method = parser.get_method().decode("ascii")
        headers, target = self._headers, self._url
        request = Received(method, path, query, headers.text, body, headers, target, self._version)
        self._sink.take(request, connection)

    def _refuse_head(self) -> None:
        self.refuse(431, f"the request's line and headers exceed {MAX_HEAD} bytes")

    def _decline(self, rest: bytes | memoryview) -> None:
        """A client offers another protocol: read its request as if it had not.

        llhttp takes what follows such a head for the other protocol, so the body would be lost.
        """
        method = self._parser.get_method()
        if method == b"CONNECT":
            self.refuse(405, "this server is not a proxy")
            return
        fields = [
            b"%s: %s\r\n" % (name, value)
            for name, value in self._headers.items()
            if name not in (b"upgrade", b"connection")
        ]
        self._parser = httptools.HttpRequestParser(self)
        line = b"%s %s HTTP/%s\r\n" % (method, self._url, self._version.encode("ascii"))
        self.feed(b"%s%s\r\n%s" % (line, b"".join(fields), rest))


def _size(field: tuple[bytes, bytes]) -> int:
    return len(field[0]) + len(field[1])


def _parts(url: bytes) -> tuple[str, str]:
    """Return path, decoded, and query of a request's target."""
    target, _, query = url.partition(b"?")
    if not target.startswith(b"/"):
        target, query = _absolute(url)
    path = target.decode("ascii", "replace")
    return unquote(path) if "%" in path else path, query.decode("ascii", "replace")


def _absolute(url: bytes) -> tuple[bytes, bytes]:
    """Return path and query of a target with scheme and host, as a proxy gets it."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        return url, b""
    return parsed.path or b"/", parsed.query or b""
