"""What a WSGI app answers, as it leaves on a connection of the gevent server.

app ── start_response ──> status and headers, checked, kept until there is something to send
app ── result, write  ──> the first piece leaves together with them
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from zstreamer.errors import ZStreamerError
from zstreamer.web.api import problem
from zstreamer.web.api.steps import Header
from zstreamer.web.http.connection import JOINED
from zstreamer.web.http.environ import Environ
from zstreamer.web.http.response_head import CLOSE, head, status_line

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

_OURS = frozenset(
    [
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailers",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Headers of a connection, which belong to its server (RFC 2616, 13.5.1): an app's are left out."""


class Gone(Exception):
    """The client takes no more of its answer."""


class Way(Protocol):
    """Where answers go."""

    @property
    def date(self) -> bytes:
        """The Date header."""

    @property
    def ends(self) -> bool:
        """No further request is answered on it."""

    def send(self, data: bytes) -> None:
        """Send all of it, or raise `Gone`."""

    def failed(self, environ: Environ, error: BaseException) -> None:
        """An app has raised what is not an error of zstreamer: log it."""


class Answer:
    """The answer to one request.

    Args:
        way: where it goes.
        environ: the request's.
        connection: the header to answer with, as `Receiver` gives it.

    Attributes:
        connection: `CLOSE` where no further request can be answered.
        status: as the app says it, "200 OK"; empty before there is one.
        headers: the app's.
        sent: bytes of body.
    """

    __slots__ = (
        "_begun",
        "_bodiless",
        "_chunked",
        "_code",
        "_environ",
        "_given",
        "_lines",
        "_way",
        "connection",
        "headers",
        "sent",
        "status",
    )

    def __init__(self, way: Way, environ: Environ, connection: bytes) -> None:
        self.connection = connection
        self.status = ""
        self.headers: list[Header] = []
        self.sent = 0
        self._code = 0
        self._way = way
        self._environ = environ
        self._lines = b""
        self._given: dict[str, str] = {}
        self._begun = False
        self._bodiless = False
        self._chunked = False

    def run(self, app: WSGIApplication) -> None:
        """Have the app answer; where it fails, answer that. Raises Gone."""
        try:
            result = app(self._environ, self.start_response)
            try:
                self._send_all(result)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except Gone:
            raise
        except StopIteration:  # an app that has taken the socket over says so
            self.connection = CLOSE
        except (Exception, SystemExit) as error:  # noqa: BLE001  # no app may end its server
            self._fail(error)

    def start_response(
        self, status: str, headers: list[Header], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Take status and headers, as PEP 3333 has it; returns `write`.

        Raises:
            ValueError: one of them holds a line break, or a character beyond Latin-1.
            TypeError: one is no text.
        """
        if exc_info is not None and self._begun and exc_info[1] is not None:
            raise exc_info[1]
        if exc_info is None and self._code:
            raise RuntimeError("start_response was called twice")
        given = {name.lower(): value for name, value in headers}
        if not _OURS.isdisjoint(given):
            headers = [each for each in headers if each[0].lower() not in _OURS]
        lines = "\r\n".join(["HTTP/1.1 " + status, *map(": ".join, headers), ""])
        ends = len(headers) + 1
        if lines.count("\n") != ends or lines.count("\r") != ends:
            raise ValueError(f"a line break in the status or a header: {lines!r:.200}")
        self._lines = lines.encode("latin-1")
        self._given = given
        self._code = int(status[:3])
        self.status, self.headers = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self._begun:
            self._send(data)
        else:
            self._begin(data, False)

    def _send_all(self, result: Iterable[bytes]) -> None:
        whole = isinstance(result, list | tuple)
        for data in [b"".join(result)] if whole else result:
            if self._begun:
                self._send(data)
            elif data:  # an app may still change its mind about the headers before
                self._begin(data, whole)
        if not self._begun:
            self._begin(b"", True)
        if self._chunked:
            self._way.send(b"0\r\n\r\n")
        given = self._given.get("content-length")
        if given is not None and not self._bodiless and given != str(self.sent):
            log.error("an app sent %d bytes after content-length: %s", self.sent, given)
            self.connection = CLOSE

    def _begin(self, data: bytes, whole: bool) -> None:
        """Send what `start_response` was given, and the first piece."""
        if not self._code:
            raise RuntimeError("the app has not called start_response")
        self._begun = True
        if self._way.ends or self._given.get("connection") == "close":
            self.connection = CLOSE
        framing = self._framing(data, whole)
        date = b"" if "date" in self._given else self._way.date
        connection = b"" if "connection" in self._given else self.connection
        begin = b"%s%s%s%s\r\n" % (self._lines, date, connection, framing)
        if not self._bodiless and len(data) <= JOINED:
            self._way.send(begin + self._piece(data))
        else:
            self._way.send(begin)
            self._send(data)

    def _framing(self, data: bytes, whole: bool) -> bytes:
        """The header that says where the body ends, where the app has not given one."""
        without = self._code < 200 or self._code in (204, 304)
        head_only = self._environ["REQUEST_METHOD"] == "HEAD"
        self._bodiless = without or head_only
        if without or "content-length" in self._given:
            return b""
        if whole and (data or not head_only):
            return b"content-length: %d\r\n" % len(data)
        if head_only:
            return b""
        if self._environ["SERVER_PROTOCOL"] == "HTTP/1.1":
            self._chunked = True
            return b"transfer-encoding: chunked\r\n"
        self.connection = CLOSE
        return b""

    def _send(self, data: bytes) -> None:
        if data and not self._bodiless:
            self._way.send(self._piece(data))

    def _piece(self, data: bytes) -> bytes:
        self.sent += len(data)
        return b"%x\r\n%s\r\n" % (len(data), data) if self._chunked and data else data

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, ZStreamerError):
            self._way.failed(self._environ, error)
        if self._begun:  # closing is all that can still tell
            self.connection = CLOSE
            return
        self._begun = True
        response = problem.response(error if isinstance(error, Exception) else Exception())
        if self._environ["REQUEST_METHOD"] == "HEAD":
            response = response.bare()
        if self._way.ends:
            self.connection = CLOSE
        self.status, self.headers = status_line(response.status), response.headers
        self.sent = len(response.body)
        self._way.send(head(response, self._way.date, self.connection) + response.body)
