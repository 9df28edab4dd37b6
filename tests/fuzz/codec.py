"""Payloads: what can be decoded can be encoded again, and then stays as it is."""

from __future__ import annotations

import msgpack

from zstreamer import codec
from zstreamer.errors import BadRequest


def check(data: bytes) -> None:
    """Decode an input, which may be refused in words; encode what it is, and do it again."""
    try:
        value = codec.decode(data)
    except BadRequest:
        return
    assert not _unknown(value), "an extension that nobody knows"
    try:
        once = codec.encode(value)
    except BadRequest:  # such as keys that are floats
        return
    again = codec.decode(once)
    assert isinstance(value, type(again))  # numpy's text and bytes arrive as Python's
    assert codec.encode(again) == once


def _unknown(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_unknown, value)) or any(map(_unknown, value.values()))
    if isinstance(value, msgpack.ExtType):
        return True
    return isinstance(value, list | tuple) and any(map(_unknown, value))
