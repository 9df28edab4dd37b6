"""The values that travel as extension types of msgpack.

    ext 1  array   msgpack [dtype string, shape], then the bytes in C order
    ext 2  scalar  the same for a numpy scalar (shape [])
    ext 3  tensor  the same for a torch tensor, whose dtype is torch's name
    ext 4  text    msgpack [name, text]: a time or date without a zone, a decimal number, a UUID

numpy and torch are used where the program has them already. A reader without torch gets a tensor
as an array, in float 32 where numpy has no such numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgpack

from zstreamer.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np

ARRAY, SCALAR, TENSOR, TEXT = 1, 2, 3, 4

KINDS = "biufcmMSU"
"""Kinds of numpy's dtypes whose bytes are their values."""

DTYPES = {
    "bool": "|b1",
    "uint8": "|u1",
    "int8": "|i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float16": "<f2",
    "bfloat16": "<u2",
    "float32": "<f4",
    "float64": "<f8",
    "complex64": "<c8",
    "complex128": "<c16",
}
"""torch's dtypes that are sent, and numpy's of the same bytes."""

_TEXTS: dict[str, tuple[type, Callable[[Any], str], Callable[[str], object]]] = {
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "decimal": (Decimal, str, Decimal),
    "uuid": (UUID, str, UUID),
}
"""By name: the class, and what makes text of a value of it and a value of the text."""

_NAMES = {cls: name for name, (cls, _, _) in _TEXTS.items()}


def encode_numbers(value: object) -> msgpack.ExtType | None:
    """Return an array, a scalar or a tensor as an extension; None where it is none.

    Raises:
        TypeError: it is one that cannot be sent.
    """
    np = sys.modules.get("numpy")
    if np is not None:
        if isinstance(value, np.ndarray):
            if _masked(value):
                raise TypeError("its mask would be lost: send .filled(…), or data and mask")
            return msgpack.ExtType(ARRAY, _array_bytes(value))
        if isinstance(value, np.generic):
            return msgpack.ExtType(SCALAR, _array_bytes(np.asarray(value)))
    if is_tensor(value):
        return msgpack.ExtType(TENSOR, _tensor_bytes(value))
    return None


def encode_text(value: object) -> msgpack.ExtType | None:
    """Return a value of one of the classes that travel as text; None where it is none.

    Raises:
        TypeError: it has a time zone that msgpack's own times cannot carry.
    """
    name = _NAMES.get(type(value))
    if name is None:
        return None
    if type(value) is datetime and value.tzinfo is not None:
        raise TypeError("a time beyond the years 1 to 9999")
    return msgpack.ExtType(TEXT, msgpack.packb([name, _TEXTS[name][1](value)]))


def decode(kind: int, data: bytes) -> object:
    """Return the value of an extension.

    Raises:
        BadRequest: there is no such type, or its data is none of its.
        Exception: whatever numpy raises for bytes that are no array.
    """
    if kind == TEXT:
        return _decode_text(data)
    if kind not in (ARRAY, SCALAR, TENSOR):
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
    if kind == TENSOR:
        return _tensor(dtype, shape, data, unpacker.tell())
    kind_of = np.dtype(dtype)
    if kind_of.kind not in KINDS:
        raise BadRequest(f"payload holds an array of dtype {dtype!r}")
    flat = np.frombuffer(data, kind_of, offset=unpacker.tell())
    array = flat.reshape(shape).copy()  # a copy, so that it is aligned and can be written to
    return array if kind == ARRAY else array[()]


def is_tensor(value: object) -> bool:
    """Whether it is a torch tensor; torch is not imported for that."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def _array_bytes(array: np.ndarray) -> bytes:
    if array.dtype.kind not in KINDS:  # its bytes would be addresses, or have no meaning
        fix = ": convert it with .astype(str)" if array.dtype.kind == "T" else ""
        raise TypeError(f"cannot encode an array of dtype {array.dtype}{fix}")
    head: bytes = msgpack.packb([array.dtype.str, array.shape])
    return head + array.tobytes(order="C")


def _masked(array: np.ndarray) -> bool:
    ma = sys.modules.get("numpy.ma")  # imported where there is a masked array
    return ma is not None and isinstance(array, ma.MaskedArray)


def _tensor_bytes(tensor: Any) -> bytes:
    torch = sys.modules["torch"]
    name = str(tensor.dtype).removeprefix("torch.")
    if str(tensor.layout) != "torch.strided":
        raise TypeError(f"a tensor of layout {tensor.layout}: convert it with .to_dense()")
    if name not in DTYPES:
        raise TypeError(f"a tensor of dtype {tensor.dtype}: convert it with .float()")
    if tensor.device.type == "meta":
        raise TypeError("a tensor of device meta, which has no values")
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    head: bytes = msgpack.packb([name, list(tensor.shape)])
    return head + bytes(flat.view(torch.uint8).numpy().tobytes())


def _tensor(name: str, shape: list[int], data: bytes, offset: int) -> object:
    import numpy as np

    if name not in DTYPES:
        raise BadRequest(f"payload holds a tensor of dtype {name!r}")
    array = np.frombuffer(data, DTYPES[name], offset=offset).reshape(shape).copy()
    torch = sys.modules.get("torch")
    if hasattr(torch, "from_numpy"):
        if name == "bfloat16":  # of the same bytes; numpy has no name for them
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)  # type: ignore[union-attr]
        return torch.from_numpy(array)  # type: ignore[union-attr]
    if name == "bfloat16":  # the upper half of a float 32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _decode_text(data: bytes) -> object:
    name, text = msgpack.unpackb(data)
    if name not in _TEXTS or type(text) is not str:
        raise BadRequest(f"payload holds a value of the unknown name {name!r:.50}")
    cls, write, read = _TEXTS[name]
    value = read(text)
    if type(value) is not cls or write(value) != text or getattr(value, "tzinfo", None):
        raise BadRequest(f"payload holds the {name} {text!r:.50}, which is not written as one")
    return value
