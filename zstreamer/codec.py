"""Python values, numpy arrays and torch tensors ⇄ payload bytes.

A payload is one msgpack value. What msgpack has no type for travels as an extension, nested
anywhere: see `zstreamer.extensions`.

Never pickle: bytes from the network must not be able to run code. Tuples arrive as lists, and
dataclasses as dicts of their fields. Keys of dicts are text or integers, which every language can
read. What would arrive as something else, or not at all, is refused before it is sent: sets,
masked arrays without their mask, extension types that nobody knows there, times out of range.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

import msgpack

from zstreamer import extensions
from zstreamer.errors import BadRequest

MAX_DEPTH = 200  # of the walk that names the place; msgpack itself stops at 511 or later


def encode_all(items: Sequence[object], name: str = "items[{}]") -> list[bytes]:
    """Return the payload of each of ``items``.

    Args:
        items: what is to be sent.
        name: what errors call an item, with its index in the place of the braces.

    Raises:
        BadRequest: an item holds something that cannot be sent; the message names its
            type and where in the input it is, and ``index`` says which item.
    """
    pack = msgpack.Packer(default=_encode_extension, datetime=True).pack
    try:
        payloads = [pack(item) for item in items]
        _check_all(items)
    except (TypeError, ValueError, OverflowError, RecursionError) as cause:
        raise _explain(items, name, cause) from cause
    return payloads


def encode(value: object, name: str = "items[{}]") -> bytes:
    """Return the payload of one value; arguments and errors as for `encode_all`."""
    return encode_all((value,), name)[0]


def decode(payload: bytes | memoryview) -> object:
    """Return the value in ``payload``.

    Raises:
        BadRequest: the bytes are not one well-formed payload, or hold an array while numpy
            is not installed here.
    """
    try:
        return msgpack.unpackb(
            payload, ext_hook=extensions.decode, strict_map_key=False, timestamp=3
        )
    except BadRequest:
        raise
    except Exception as cause:  # msgpack raises many kinds; whatever it is, the bytes are bad
        raise BadRequest(f"payload of {len(payload)} bytes cannot be decoded: {cause!r}") from cause


def _encode_extension(value: object) -> object:
    """Return what msgpack packs in the place of a value that it does not know."""
    found = extensions.encode_numbers(value) or extensions.encode_text(value)
    if found is not None:
        return found
    if _is_record(value):
        return _fields(value)
    raise TypeError(f"cannot encode {_name(value)}")


def _is_record(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _fields(record: Any) -> dict[str, object]:
    return {each.name: getattr(record, each.name) for each in fields(record)}


class Codec(NamedTuple):
    """How the values of a connection become payloads, and payloads values."""

    encode_all: Callable[[Sequence[object], str], list[bytes]]
    decode: Callable[[bytes | memoryview], object]


PLAIN = Codec(encode_all, decode)
"""The one that every connection has, but those of a `Streamer` to its own workers."""

_LEAVES = {str, bytes, int, float, bool, type(None)}
"""Types of most that is sent, of which msgpack refuses what it cannot carry."""

_KEYS = {str, int}
"""Types of most keys."""


def _check_all(values: Collection[object]) -> None:
    """Raise where msgpack has packed what does not arrive as it was."""
    if not _LEAVES.issuperset(map(type, values)):
        for value in values:
            check(value)


def check(value: object) -> None:
    """Raise where msgpack has packed a value that does not arrive as it was.

    Raises:
        TypeError, OverflowError: it is such a value.
    """
    kind = type(value)
    if kind in _LEAVES or kind.__module__ == "numpy":
        return
    if isinstance(value, dict):
        if not _KEYS.issuperset(map(type, value)):
            for key in value:
                _check_key(key)
        _check_all(value.values())
    elif isinstance(value, msgpack.ExtType):
        raise TypeError("an extension type, which the other end does not know")
    elif isinstance(value, list | tuple):
        _check_all(value)
    elif isinstance(value, datetime) and value.tzinfo is not None:
        value.astimezone(timezone.utc)  # raises where that is beyond the years 1 to 9999
    elif isinstance(value, msgpack.Timestamp):
        value.to_datetime()
    elif _is_record(value):
        _check_all(_fields(value).values())


def _check_key(key: object) -> None:
    if not _is_key(key):
        raise TypeError("the key of a dict that is sent must be text or an integer")


def _is_key(key: object) -> bool:
    return isinstance(key, str | int) and not isinstance(key, bool)


def _name(value: object) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


def _shown(key: object) -> str:
    """Return a dict's key as it is written, if that is short."""
    try:
        return f"{key!r:.60}"
    except Exception:  # noqa: BLE001  # it may be of the user's class
        return _name(key)


def _explain(items: Sequence[object], name: str, cause: Exception) -> BadRequest:
    for index, item in enumerate(items):
        found = _find(item, name.format(index), 0)
        if found:
            error = BadRequest(found)
            error.index = index
            return error
    return BadRequest(f"what is to be sent cannot be encoded: {cause}")


def _find(value: object, path: str, depth: int) -> str | None:
    """Return words about the first thing below ``value`` that cannot be sent."""
    if depth > MAX_DEPTH:
        return f"{path[:60]}… is nested deeper than {MAX_DEPTH} levels (does it contain itself?)"
    if isinstance(value, dict):
        for key, inner in value.items():
            found = _find_key(key, path, depth) or _find(inner, f"{path}[{_shown(key)}]", depth + 1)
            if found:
                return found
        return None
    for place, inner in _inner(value):
        found = _find(inner, path + place, depth + 1)
        if found:
            return found
    return _find_leaf(value, path)


def _inner(value: object) -> Iterator[tuple[str, object]]:
    """Yield what a list or a dataclass holds, with its place."""
    if isinstance(value, list | tuple) and not isinstance(value, msgpack.ExtType):
        yield from ((f"[{position}]", inner) for position, inner in enumerate(value))
    elif _is_record(value):
        yield from ((f".{name}", inner) for name, inner in _fields(value).items())


def _find_key(key: object, path: str, depth: int) -> str | None:
    if isinstance(key, tuple):
        return (
            f"{path} has the key {_shown(key)}, a tuple, which cannot be sent as a key: join it to "
            "text, or send a list of pairs"
        )
    found = _find(key, f"{path}.key({_shown(key)})", depth + 1)
    if found or _is_key(key):
        return found
    shown = _shown(key)
    kind = getattr(getattr(key, "dtype", None), "kind", "")  # of a number of numpy
    fix = f"int({shown})" if kind and kind in "iu" else f"str({shown})"
    if isinstance(key, bytes):
        fix = f"{shown}.decode()"
    return f"{path} has the key {shown}; keys must be text or integers: send {fix}"


def _find_leaf(value: object, path: str) -> str | None:
    try:
        msgpack.packb(value, default=_encode_extension, datetime=True)
        check(value)
    except UnicodeEncodeError:
        return f"{path} is text with a lone surrogate, which is not valid Unicode"
    except (TypeError, ValueError, OverflowError) as cause:
        return f"{path} is {_name(value)}, which cannot be sent ({_fix(value, cause)})"
    return None


def _fix(value: object, cause: Exception) -> str:
    fix = "send text, bytes, numbers, times, None, lists, dicts, arrays or tensors"
    if isinstance(value, int):
        fix = "an integer outside 64 bits; send it as text"
    elif isinstance(value, datetime | msgpack.Timestamp):
        fix = _fix_time(value)
    elif isinstance(value, set | frozenset):
        fix = "convert it to a list"
    elif hasattr(value, "dtype") or isinstance(value, msgpack.ExtType):
        fix = str(cause)
    return fix


def _fix_time(value: datetime | msgpack.Timestamp) -> str:
    if type(value) is datetime or isinstance(value, msgpack.Timestamp):
        return "in UTC it is beyond the years 1 to 9999; send it as text"
    return "a class of its own; send it as text, or as a plain datetime"
