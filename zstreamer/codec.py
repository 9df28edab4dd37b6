"""Python values and numpy arrays ⇄ payload bytes.

A payload is one msgpack value. Arrays travel as extension types, nested anywhere:

    ext 1  array   msgpack [dtype string, shape] followed by the C-order bytes
    ext 2  scalar  the same for a numpy scalar (shape [])

Never pickle: bytes from the network must not be able to run code. Tuples arrive as lists. Keys of
dicts are text or integers, which every language can read. What would arrive as something else, or
not at all, is refused before it is sent: masked arrays without their mask, extension types that
nobody knows there, times out of range.
numpy is used where the program has it already and is not imported by this module otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgpack

from zstreamer.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np

ARRAY = 1
SCALAR = 2
KINDS = "biufcmMSU"
"""Kinds of numpy's dtypes whose bytes are their values."""

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
            if _masked(value):
                raise TypeError("its mask would be lost: send .filled(…), or data and mask")
            return msgpack.ExtType(ARRAY, _array_bytes(value))
        if isinstance(value, np.generic):
            return msgpack.ExtType(SCALAR, _array_bytes(np.asarray(value)))
    raise TypeError(f"cannot encode {_name(value)}")


def _array_bytes(array: np.ndarray) -> bytes:
    if array.dtype.kind not in KINDS:  # its bytes would be addresses, or have no meaning
        fix = ": convert it with .astype(str)" if array.dtype.kind == "T" else ""
        raise TypeError(f"cannot encode an array of dtype {array.dtype}{fix}")
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
    if kind_of.kind not in KINDS:
        raise BadRequest(f"payload holds an array of dtype {dtype!r}")
    flat = np.frombuffer(data, kind_of, offset=unpacker.tell())
    array = flat.reshape(shape).copy()  # a copy, so that it is aligned and can be written to
    return array if kind == ARRAY else array[()]


_LEAVES = {str, bytes, int, float, bool, type(None)}
"""Types of most that is sent, of which msgpack refuses what it cannot carry."""

_KEYS = {str, int}
"""Types of most keys."""


def _check_all(values: Collection[object]) -> None:
    """Raise where msgpack has packed what does not arrive as it was."""
    if not _LEAVES.issuperset(map(type, values)):
        for value in values:
            _check(value)


def _check(value: object) -> None:
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
    elif isinstance(value, datetime):
        value.astimezone(timezone.utc)  # raises where that is beyond the years 1 to 9999
    elif isinstance(value, msgpack.Timestamp):
        value.to_datetime()


def _check_key(key: object) -> None:
    if not _is_key(key):
        raise TypeError("the key of a dict that is sent must be text or an integer")


def _is_key(key: object) -> bool:
    return isinstance(key, str | int) and not isinstance(key, bool)


def _masked(array: np.ndarray) -> bool:
    ma = sys.modules.get("numpy.ma")  # imported where there is a masked array
    return ma is not None and isinstance(array, ma.MaskedArray)


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
    if isinstance(value, list | tuple) and not isinstance(value, msgpack.ExtType):
        for position, inner in enumerate(value):
            found = _find(inner, f"{path}[{position}]", depth + 1)
            if found:
                return found
        return None
    return _find_leaf(value, path)


def _find_key(key: object, path: str, depth: int) -> str | None:
    if isinstance(key, tuple):
        return (
            f"{path} has the key {_shown(key)}, a tuple, which cannot be sent as a key: join it to "
            "text, or send a list of pairs"
        )
    found = _find(key, f"{path}.key({_shown(key)})", depth + 1)
    if found or _is_key(key):
        return found
    fix = f"int({_shown(key)})" if hasattr(key, "dtype") else f"str({_shown(key)})"
    return f"{path} has the key {_shown(key)}; keys must be text or integers: send {fix}"


def _find_leaf(value: object, path: str) -> str | None:
    try:
        msgpack.packb(value, default=_encode_extension, datetime=True)
        _check(value)
    except UnicodeEncodeError:
        return f"{path} is text with a lone surrogate, which is not valid Unicode"
    except (TypeError, ValueError, OverflowError) as cause:
        return f"{path} is {_name(value)}, which cannot be sent ({_fix(value, cause)})"
    return None


def _fix(value: object, cause: Exception) -> str:
    fix = "send text, bytes, numbers, None, lists, dicts or numpy arrays"
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "requires_grad"):
        fix = f"convert it with {_to_numpy(value)}"
    elif isinstance(value, int):
        fix = "an integer outside 64 bits; send it as text"
    elif isinstance(value, datetime | msgpack.Timestamp):
        fix = _fix_time(value)
    elif isinstance(value, set | frozenset):
        fix = "convert it to a list"
    elif hasattr(value, "dtype") or isinstance(value, msgpack.ExtType):
        fix = str(cause)
    return fix


def _fix_time(value: datetime | msgpack.Timestamp) -> str:
    if isinstance(value, datetime) and value.tzinfo is None:
        return "give it a time zone"
    if type(value) is datetime or isinstance(value, msgpack.Timestamp):
        return "in UTC it is beyond the years 1 to 9999; send it as text"
    return "a class of its own; send it as text, or as a plain datetime"


def _to_numpy(tensor: Any) -> str:
    """Return what makes an array of a torch tensor, which numpy does not take as it is."""
    steps = [".detach()"] if tensor.requires_grad else []
    if str(tensor.layout) != "torch.strided":
        steps.append(".to_dense()")
    if str(tensor.dtype).startswith(("torch.bfloat16", "torch.float8", "torch.float4")):
        steps.append(".float()")
    if tensor.device.type != "cpu":
        steps.append(".cpu()")
    return "".join((*steps, ".numpy()"))
