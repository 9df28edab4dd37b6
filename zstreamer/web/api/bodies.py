"""The bodies of requests: what kind they are, decompressed, and taken apart."""

from __future__ import annotations

import zlib
from urllib.parse import unquote_to_bytes

from zstreamer import codec
from zstreamer.errors import BadRequest
from zstreamer.web.api import uploads
from zstreamer.web.api.json import check_nesting
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.steps import Request

JSON = "application/json"
MSGPACK = "application/msgpack"
FORM = "application/x-www-form-urlencoded"

_KINDS = {
    "": JSON,
    JSON: JSON,
    "text/json": JSON,
    MSGPACK: MSGPACK,
}

_FILES = (uploads.FORM, uploads.BYTES, f"{uploads.IMAGES}*")

_CODINGS = ("gzip", "x-gzip", "deflate")

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


def kind(request: Request) -> str:
    """Return `JSON` or `MSGPACK`; raises `Refused` for another content type."""
    found = _KINDS.get(named(request))
    if found is None:
        given = request.header("content-type") or ""
        raise Refused(
            415,
            f"a body of type {given[:100]!r} is not supported; send {JSON}, with the bytes of a "
            f'file as {{"instances": [{{"b64": "…"}}]}}, or {MSGPACK}; or the file itself as '
            f"{uploads.FORM}, {uploads.BYTES} or {uploads.IMAGES}*",
            [("accept", ", ".join((JSON, MSGPACK, *_FILES)))],
        )
    return found


def named(request: Request) -> str:
    """Return the content type in lower case and without parameters; empty where there is none."""
    given = request.header("content-type") or ""
    return given.partition(";")[0].strip().lower()


def plain(request: Request, limits: Limits) -> bytes:
    """Return the body without its compression.

    Raises:
        Refused: it is too large, compressed in an unknown way, or broken.
    """
    body = request.body
    if len(body) > limits.max_body:
        raise too_large(limits)
    coding = (request.header("content-encoding") or "identity").strip().lower()
    if coding == "identity" or not body:
        return body
    if coding not in _CODINGS:
        raise Refused(
            415,
            f"content-encoding {coding[:50]!r} is not supported; send gzip, deflate or none",
            [("accept-encoding", "gzip, deflate")],
        )
    return _decompressed(body, coding, limits)


def too_large(limits: Limits) -> Refused:
    """Return what to raise for a body that is too large."""
    return Refused(413, f"the body is larger than {limits.max_body} bytes; send less at a time")


def _decompressed(body: bytes, coding: str, limits: Limits) -> bytes:
    """Unpack no more than may be unpacked: a few kilobytes can stand for gigabytes."""
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        found = unpacker.decompress(body, limits.max_body + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is not valid {coding}: {error}") from None
    if len(found) > limits.max_body:
        raise too_large(limits)
    if not unpacker.eof or unpacker.unused_data:
        raise BadRequest(f"the body is not one whole {coding} stream; it ends early or goes on")
    return found


def msgpack(body: bytes, limits: Limits) -> object:
    """Return the value of a msgpack body; arrays as extension types, as `zstreamer.codec` has them.

    Raises:
        BadRequest: it is no such thing.
    """
    value = codec.decode(body)
    check_nesting(value, limits.max_nesting)
    return value


def field(form: bytes, name: bytes = b"s") -> list[object]:
    """Return all values of one field of a form, which must be UTF-8; raises BadRequest."""
    prefix = name + b"="
    parts = [each for each in form.split(b"&") if each.startswith(prefix)]
    found: list[object] = []
    for part in parts:
        value = part[len(prefix) :].replace(b"+", b" ")
        try:
            found.append((unquote_to_bytes(value) if b"%" in value else value).decode())
        except UnicodeDecodeError as error:
            raise BadRequest(f"field {name.decode()!r} is not UTF-8: {error}") from None
    return found
