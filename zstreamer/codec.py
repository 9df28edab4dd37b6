"""Python values and numpy arrays ⇄ payload bytes.

A payload is one msgpack value. Arrays travel as extension types, nested anywhere:

    ext 1  array   msgpack [dtype string, shape] followed by the C-order bytes
    ext 2  scalar  the same for a numpy scalar (shape [])

Never pickle: bytes from the network must not be able to run code. Tuples arrive as lists.
numpy is used where the program has it already and is not imported by this module otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgpack

from zstreamer.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np

ARRAY = 1
SCALAR = 2
MAX_DEPTH = 200  # of the walk that names the place; msgpack itself stops at 511 or later


def encode_all(items: Sequence[object]) -> list[bytes]:
    """Return the payload of each of ``items``.

    Raises:
        BadRequest: an item holds something that cannot be encoded; the message names its
            type and where in the input it is, and ``index`` says which item.
    """
    pack = msgpack.Packer(default=_encode_extension, datetime=True).pack
    try:
        return [pack(item) for item in items]
    except (TypeError, ValueError, OverflowError, RecursionError) as cause:
        raise _explain(items, cause) from cause


def encode(value: object) -> bytes:
    """Return the payload of one value; raises as `encode_all` does."""
    return encode_all((value,))[0]


def decode(payload: bytes | memoryview) -> object:
    """Return the value in ``payload``.

    Raises:
        BadRequest: the bytes are not one well-formed payload, or hold an array while numpy
            is not installed here.
    """
    try:
        return msgpack.unpackb(
            payload, ext_hook=_decode_extension, strict_map_key=False, timestamp=3
        )
    except BadRequest:
        raise
    except Exception as cause:  # msgpack raises many kinds; whatever it is, the bytes are bad
        raise BadRequest(f"payload of {len(payload)} bytes cannot be decoded: {cause!r}") from cause


def decode_all(payloads: Iterable[bytes | memoryview]) -> list[object]:
    """Return the value of each payload; raises as `decode` does."""
    return [decode(payload) for payload in payloads]


def _encode_extension(value: object) -> msgpack.ExtType:
    np = sys.modules.get("numpy")
    if np is not None:
        if isinstance(value, np.ndarray):
            return msgpack.ExtType(ARRAY, _array_bytes(value))
        if isinstance(value, np.generic):
            return msgpack.ExtType(SCALAR, _array_bytes(np.asarray(value)))
    raise TypeError(f"cannot encode {_name(value)}")


def _array_bytes(array: np.ndarray) -> bytes:
    if array.dtype.kind in "OV":
        raise TypeError(f"cannot encode an array of dtype {array.dtype}")
    head: bytes = msgpack.packb([array.dtype.str, array.shape])
    return head + array.tobytes(order="C")


def _decode_extension(kind: int, data: bytes) -> object:
    if kind not in (ARRAY, SCALAR):
        raise BadRequest(f"payload holds an unknown extension type {kind}")
    try:
        import numpy as np
    except ImportError:
        raise BadRequest("payload holds a numpy array; install numpy to read it") from None
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data[:4096])  # the head is short; feeding all would copy the array
    dtype, shape = unpacker.unpack()
    sizes = type(shape) is list and all(type(n) is int and n >= 0 for n in shape)
    if type(dtype) is not str or not sizes or (kind == SCALAR and shape):
        raise BadRequest(f"payload holds an array of dtype {dtype!r} and shape {shape!r}")
    kind_of = np.dtype(dtype)
    if kind_of.kind in "OV":
        raise BadRequest(f"payload holds an array of dtype {dtype!r}")
    flat = np.frombuffer(data, kind_of, offset=unpacker.tell())
    array = flat.reshape(shape).copy()  # a copy, so that it is aligned and can be written to
    return array if kind == ARRAY else array[()]


def _name(value: object) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


def _explain(items: Sequence[object], cause: Exception) -> BadRequest:
    for index, item in enumerate(items):
        found = _find(item, f"items[{index}]", 0)
        if found:
            error = BadRequest(found)
            error.index = index
            return error
    return BadRequest(f"items cannot be encoded: {cause}")


def _find(value: object, path: str, depth: int) -> str | None:
    """Return words about the first thing below ``value`` that cannot be encoded."""
    if depth > MAX_DEPTH:
        return f"{path[:60]}… is nested deeper than {MAX_DEPTH} levels (does it contain itself?)"
    if isinstance(value, dict):
        for key, inner in value.items():
            found = _find(key, f"{path}.key({key!r})", depth + 1) or _find(
                inner, f"{path}[{key!r}]", depth + 1
            )
            if found:
                return found
        return None
    if isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            found = _find(inner, f"{path}[{position}]", depth + 1)
            if found:
                return found
        return None
    return _find_leaf(value, path)


def _find_leaf(value: object, path: str) -> str | None:
    try:
        msgpack.packb(value, default=_encode_extension, datetime=True)
    except UnicodeEncodeError:
        return f"{path} is text with a lone surrogate, which is no valid Unicode"
    except (TypeError, ValueError, OverflowError) as cause:
        return f"{path} is {_name(value)}, which cannot be sent ({_mend(value, cause)})"
    return None


def _mend(value: object, cause: Exception) -> str:
    if type(value).__module__.startswith("torch"):
        return "convert it with .cpu().numpy()"
    if isinstance(value, int):
        return "an integer outside 64 bits; send it as text"
    if isinstance(value, datetime):
        return "give it a time zone"
    if isinstance(value, set | frozenset):
        return "convert it to a list"
    if hasattr(value, "dtype"):
        return str(cause)
    return "send text, bytes, numbers, None, lists, dicts or numpy arrays"
