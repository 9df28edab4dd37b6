"""The WSGI environs of requests: what an app is told of each (PEP 3333). No sockets."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import TypeAlias

from zstreamer.web.api.problem import Refused
from zstreamer.web.http.receiver import Received

Environ: TypeAlias = "dict[str, object]"


@dataclass(frozen=True)
class HeaderRules:
    """Which headers are accepted, and from which clients; the names are gunicorn's.

    Args:
        limit_request_line: most bytes of a request's target; 0 for no limit.
        limit_request_fields: most headers.
        limit_request_field_size: most bytes of one header's value; 0 for no limit.
        forwarded_allow_ips: addresses or networks of proxies that are believed; "*" for all.
            A client on a Unix socket is one of them.
        secure_scheme_headers: headers, in capitals, by which a proxy says that its client came
            over TLS, with the value that says so.
        forwarder_headers: headers with an underscore that a proxy may send, in capitals.
        header_map: what becomes of another header with an underscore, which could pose as one
            with a hyphen: "drop", "refuse", or "dangerous" to take it.
    """

    limit_request_line: int = 0
    limit_request_fields: int = 32768
    limit_request_field_size: int = 0
    forwarded_allow_ips: Sequence[str] = ()
    secure_scheme_headers: Mapping[str, str] = field(default_factory=dict)
    forwarder_headers: Sequence[str] = ()
    header_map: str = "drop"

    def trusts(self, address: str | None) -> bool:
        """Whether a client is a trusted proxy; None for one on a Unix socket."""
        if address is None or "*" in self.forwarded_allow_ips:
            return True
        try:
            own = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        networks = (ipaddress.ip_network(each, strict=False) for each in self.forwarded_allow_ips)
        return any(own in each for each in networks)


class Environs:
    """Makes the environs of one connection's requests.

    Args:
        base: what all requests of the server have in common.
        rules: which headers are taken.
        client: host and port; None on a Unix socket.
        server: host and port; None on a Unix socket, where the Host header names both.

    Attributes:
        client: the client's address; empty on a Unix socket.
    """

    def __init__(
        self,
        base: Environ,
        rules: HeaderRules,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
    ) -> None:
        host, port = client or ("", "")
        self.client = host
        self._base = {**base, "REMOTE_ADDR": host, "REMOTE_PORT": str(port)}
        self._named = server is not None
        if server is not None:
            self._base |= {"SERVER_NAME": server[0], "SERVER_PORT": str(server[1])}
        self._rules = rules
        self._longest = rules.limit_request_line or math.inf
        self._most = rules.limit_request_field_size or math.inf
        trusted = rules.trusts(None if client is None else host)
        self._schemes = {
            name.lower().encode(): value.encode()
            for name, value in rules.secure_scheme_headers.items()
            if trusted
        }
        self._forwarder = frozenset(rules.forwarder_headers if trusted else ())

    def of(self, request: Received) -> Environ:
        """Return the environ of a request.

        Raises:
            Refused: its headers are beyond a limit, contradict each other or are not allowed.
        """
        headers, path, most = request.headers, request.path, self._most
        if len(request.target) > self._longest or len(headers) > self._rules.limit_request_fields:
            raise self._beyond(request)
        environ = self._base.copy()
        for name, text in headers.items():
            if len(text) > most:
                raise Refused(431, f"a header is longer than {most} bytes")
            if variable := _variable(name) or self._underscored(name):
                environ[variable] = text.decode("latin-1")
        environ["REQUEST_METHOD"] = request.method
        # What WSGI calls text is bytes, each a character of Latin-1.
        environ["PATH_INFO"] = path if path.isascii() else path.encode().decode("latin-1")
        environ["QUERY_STRING"] = request.query
        environ["RAW_URI"] = request.target.decode("latin-1")
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if request.version == "1.1" else "HTTP/1.0"
        environ["wsgi.input"] = BytesIO(request.body)
        if b"transfer-encoding" in headers:  # an app need not know that it came in chunks
            environ["CONTENT_LENGTH"] = str(len(request.body))
            environ.pop("HTTP_TRANSFER_ENCODING", None)
        if not self._schemes.keys().isdisjoint(headers):
            self._set_scheme(headers, environ)
        if not self._named:
            _name_server(environ)
        script = environ["SCRIPT_NAME"]
        if script:
            _mount(environ, str(script))
        return environ

    def _beyond(self, request: Received) -> Refused:
        if len(request.target) > self._longest:
            return Refused(414, f"the request's target is longer than {self._longest} bytes")
        most = self._rules.limit_request_fields
        return Refused(431, f"there are {len(request.headers)} headers; {most} are taken")

    def _underscored(self, name: bytes) -> str:
        """The variable of a header with an underscore; empty where it is dropped."""
        text = name.decode("latin-1").upper()
        if text in self._forwarder or "*" in self._forwarder:
            return "SCRIPT_NAME" if text == "SCRIPT_NAME" else f"HTTP_{text}".replace("-", "_")
        if self._rules.header_map == "refuse":
            raise Refused(400, f"header {text[:50]!r} has an underscore; send a hyphen")
        return f"HTTP_{text}".replace("-", "_") if self._rules.header_map == "dangerous" else ""

    def _set_scheme(self, headers: Mapping[bytes, bytes], environ: Environ) -> None:
        schemes = self._schemes.items()
        found = {headers[name] == value for name, value in schemes if name in headers}
        if len(found) > 1:
            raise Refused(400, "headers contradict each other about whether TLS was used")
        environ["wsgi.url_scheme"] = "https" if found.pop() else "http"


def _name_server(environ: Environ) -> None:
    host, _, port = str(environ.get("HTTP_HOST", "")).rpartition(":")
    if not host or not port.isdecimal():
        host = str(environ.get("HTTP_HOST", ""))
        port = "443" if environ["wsgi.url_scheme"] == "https" else "80"
    environ["SERVER_NAME"], environ["SERVER_PORT"] = host, port


def _mount(environ: Environ, script: str) -> None:
    path = str(environ["PATH_INFO"])
    if not path.startswith(script):
        raise Refused(500, f"the path {path[:100]!r} is not below SCRIPT_NAME {script[:100]!r}")
    environ["PATH_INFO"] = path[len(script) :]


@lru_cache(1024)
def _variable(name: bytes) -> str:
    """The name that a header has in an environ; empty for one that could pose as another."""
    text = name.decode("latin-1")
    if "_" in text:
        return ""
    variable = text.upper().replace("-", "_")
    return variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}"
