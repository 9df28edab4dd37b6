"""What is at an address, found out step by step with a plain socket.

name ─> route and port ─> does it speak ZMTP? ─> with which mechanism
                                └─ no ─> does it speak HTTP?
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

TIMEOUT = 2.0
"""Seconds for each step."""

_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
_GREETING = _SIGNATURE + b"\x03\x00"
"""The start of ZMTP 3.0 (https://rfc.zeromq.org/spec/23). It is enough for the peer to say all of
its own; what it does not like of the rest would have it end the connection before that is read."""

_WHOLE = 64
"""Bytes of a greeting."""

_HTTP = b"GET / HTTP/1.0\r\n\r\n"


class Step(Enum):
    """How far the probe came."""

    NAME = "name"  # the name has no address
    ABSENT = "absent"  # nothing listens there
    NO_ROUTE = "no route"  # the system knows no way there
    NO_ANSWER = "no answer"  # packets are lost, or thrown away
    DENIED = "denied"  # the system forbids it
    NO_FILE = "no file"  # an ipc address without a socket
    SILENT = "silent"  # it accepts and says nothing
    HTTP = "http"  # it speaks HTTP
    OTHER = "other"  # it speaks something else
    CURVE = "curve"  # it wants keys
    ZMTP = "zmtp"  # it speaks ZMTP without keys


@dataclass(frozen=True, slots=True)
class Place:
    """What was found at an address.

    Attributes:
        address: as it was given.
        step: how far the probe came.
        detail: what the system or the peer said.
    """

    address: str
    step: Step
    detail: str = ""


def probe(address: str, timeout: float = TIMEOUT) -> Place:
    """Look what is at a broker's address.

    Args:
        address: ``tcp://HOST:PORT`` or ``ipc://PATH``.
        timeout: seconds for each step.
    """
    step, detail = _open(address, timeout, _GREETING)
    if step is not None:
        return Place(address, step, str(detail))
    said = bytes(detail) if isinstance(detail, bytes) else b""
    if said[:1] == b"\xff" and said[9:10] == b"\x7f":
        mechanism = said[12:32].rstrip(b"\0").decode("ascii", "replace")
        return Place(address, Step.ZMTP if mechanism == "NULL" else Step.CURVE, mechanism)
    if not said:
        step, detail = _open(address, timeout, _HTTP)
        said = detail if isinstance(detail, bytes) else b""
    words = said[:80].decode("ascii", "replace").splitlines()
    first = words[0] if words else ""
    if said.startswith(b"HTTP/"):
        return Place(address, Step.HTTP, first)
    return Place(address, Step.OTHER if said else Step.SILENT, first)


def _open(address: str, timeout: float, words: bytes) -> tuple[Step | None, str | bytes]:
    """Connect, say some words, and return what comes back, or where it ended."""
    try:
        connection = _connect(address, timeout)
    except socket.gaierror as error:
        return Step.NAME, str(error)
    except TimeoutError:
        return Step.NO_ANSWER, f"no answer within {timeout:g} s"
    except OSError as error:
        return _STEPS.get(error.errno or 0, Step.NO_ANSWER), os.strerror(error.errno or 0)
    with connection:
        return None, _talk(connection, words)


def _connect(address: str, timeout: float) -> socket.socket:
    scheme, _, place = address.partition("://")
    if scheme == "ipc":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        try:
            connection.connect("\0" + place[1:] if place.startswith("@") else place)
        except BaseException:
            connection.close()
            raise
        return connection
    host, _, port = place.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout)


def _talk(connection: socket.socket, words: bytes) -> bytes:
    said = b""
    with suppress(OSError):  # what came before it is what counts
        connection.sendall(words)
        while len(said) < _WHOLE and (more := connection.recv(1024)):
            said += more
            if said.startswith(b"HTTP/"):
                break
    return said


_STEPS = {
    errno.ECONNREFUSED: Step.ABSENT,
    errno.ENOENT: Step.NO_FILE,
    errno.EHOSTUNREACH: Step.NO_ROUTE,
    errno.ENETUNREACH: Step.NO_ROUTE,
    errno.EACCES: Step.DENIED,
    errno.EPERM: Step.DENIED,
}
