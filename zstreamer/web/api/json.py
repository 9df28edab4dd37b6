"""JSON, as both protocols read and write it."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable
from decimal import Decimal

from zstreamer import extensions
from zstreamer.errors import BadRequest

try:
    import orjson
except ImportError:
    raise ImportError("the HTTP servers need orjson: pip install 'zstreamer[web]'") from None

OUTSIDE = "an integer outside 64 bits; send it as text"


def loads(body: bytes | memoryview, max_nesting: int) -> object:
    """Return the value in a JSON body.

    Raises:
        BadRequest: it is no JSON, or no JSON that can be passed on as it is: nested deeper than
            ``max_nesting`` levels, or with an integer beyond 64 bits.
    """
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    whole = bytes(body) if type(body) is memoryview else body
    if _LONG in whole.translate(_DIGITS):
        _check_integers(whole)
    if whole.count(b"[") + whole.count(b"{") > max_nesting:
        check_nesting(value, max_nesting)
    return value


def check_single(body: bytes | memoryview, name: str) -> None:
    """Raise BadRequest where the object in this body has the field twice: which one is meant?

    Slow, so worth a call only where the quoted name is there twice.
    """
    pairs = json.loads(bytes(body), object_pairs_hook=list)
    if [key for key, _ in pairs].count(name) > 1:
        raise BadRequest(f"the body has the field {name!r} more than once; send it once")


def check_nesting(value: object, most: int) -> None:
    """Raise BadRequest where lists and objects lie deeper inside each other than ``most``."""
    level = [value]
    for _ in range(most):
        level = [inner for outer in level for inner in _containers_in(outer)]
        if not level:
            return
    raise BadRequest(f"the body is nested deeper than {most} levels; flatten it")


def plain(value: object) -> object:
    """Return the form in JSON of bytes, arrays, tensors and decimal numbers.

    Raises:
        TypeError: JSON has no form for it.
    """
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, Decimal):  # as text, since a JSON number is mostly read as a float
        return str(value)
    if extensions.is_tensor(value):
        return value.tolist()  # type: ignore[attr-defined]  # as the line before says
    np = sys.modules.get("numpy")
    if np is not None and isinstance(value, np.ndarray | np.generic):
        lists = value.tolist()
        if not isinstance(lists, np.generic):  # a long double stays what it is
            return lists
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def dumps(value: object, other: Callable[[object], object] = plain) -> bytes:
    """Return a value as JSON.

    Arrays become nested lists, bytes ``{"b64": …}`` and NaN null, since JSON has none of them.

    Args:
        value: made of what JSON has, of arrays and of bytes.
        other: returns the form of anything else, or raises TypeError.

    Raises:
        TypeError: it holds something that JSON has no form for.
    """
    try:
        return orjson.dumps(value, other, orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        # Keys that are no text, and arrays of foreign byte order, are rare; to allow for them
        # would make every object slower.
        return orjson.dumps(_with_plain_keys(value), other, orjson.OPT_NON_STR_KEYS)


def _with_plain_keys(value: object) -> object:
    """Return a value with Python's own numbers for those of numpy among its keys."""
    if isinstance(value, dict):
        return {_plain_key(key): _with_plain_keys(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_plain_keys(each) for each in value]
    return value


def _plain_key(key: object) -> object:
    np = sys.modules.get("numpy")
    if np is not None and isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, bytes | complex):
        raise TypeError(f"the key {key!r:.60} is {type(key).__name__}, and JSON's keys are text")
    return key


_CONTAINERS = {list, dict}
_DIGITS = bytes(
    48 if byte in b"-0123456789" else byte if byte in b".eE+" else 32 for byte in range(256)
)
_LONG = b" " + b"0" * 20
"""Digits that may be too many, and follow no point. Shorter integers are within 64 bits; longer
ones orjson turns into floats, silently."""

_INTEGER = re.compile(rb"(?<![\d.])(-\d{19}|\d{20})\d*(?![\d.eE])")


def _containers_in(outer: object) -> Iterable[object]:
    if not isinstance(outer, dict | list):
        return ()
    values: Collection[object] = outer.values() if isinstance(outer, dict) else outer
    # Of all the values in a body most are numbers in long rows, which are not looked at singly.
    if _CONTAINERS.isdisjoint(map(type, values)):
        return ()
    return [each for each in values if type(each) in _CONTAINERS]


def _check_integers(body: bytes) -> None:
    """Look closer at a body with many digits in a row; most are text, or fractions."""
    if _INTEGER.search(body):
        try:
            json.loads(body, parse_int=_checked)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body's numbers cannot be passed on: {error}") from None


def _checked(digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else 2**64
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"{digits[:40]} is {OUTSIDE}")
    return number
