"""Payloads: what can be decoded can be encoded again, and then stays as it is."""

from __future__ import annotations

from zstreamer import codec
from zstreamer.errors import BadRequest


def check(data: bytes) -> None:
    """Decode an input, which may be refused in words; encode what it is, and do it again."""
    try:
        value = codec.decode(data)
    except BadRequest:
        return
    try:
        once = codec.encode(value)
    except BadRequest:  # such as keys that are floats
        return
    again = codec.decode(once)
    assert isinstance(value, type(again))  # numpy's text and bytes arrive as Python's
    assert codec.encode(again) == once
