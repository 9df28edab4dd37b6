"""Binary tensor data: what lies behind the JSON of a request of the Open Inference Protocol.

    JSON ── Inference-Header-Content-Length bytes ── │ first tensor │ second tensor │ …

Numbers are little-endian and in C order. Each BYTES element follows its length, a uint32.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from zstreamer.errors import BadRequest
from zstreamer.web.api.datatypes import NUMPY, numpy

if TYPE_CHECKING:
    import numpy as np


class Tail:
    """The bytes behind the JSON of a request, which its tensors share out in order."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._used = 0

    def take(self, size: object, name: str) -> memoryview:
        """Return the next ``size`` bytes; raises BadRequest where there are not so many."""
        left = len(self._data) - self._used
        if type(size) is not int or not 0 <= size <= left:
            raise BadRequest(
                f"input {name!r}: binary_data_size is {size!r:.50}, where {left} bytes are left "
                "behind the JSON; Inference-Header-Content-Length says where they begin"
            )
        self._used += size
        return self._data[self._used - size : self._used]

    def check_used(self) -> None:
        """Raise BadRequest where bytes are left over."""
        left = len(self._data) - self._used
        if left:
            raise BadRequest(f"{left} bytes behind the JSON belong to no input's binary_data_size")


def numbers(data: memoryview, name: str, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array in this data; raises BadRequest where they are not as long as it."""
    np = numpy()
    dtype = np.dtype(NUMPY[datatype])
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise BadRequest(
            f"input {name!r}: {len(data)} bytes of binary data, but {datatype} of shape "
            f"{list(shape)} has {math.prod(shape) * dtype.itemsize}"
        )
    if datatype == "BOOL":  # any byte may come, but only 0 and 1 are bools
        return np.frombuffer(data, np.uint8).reshape(shape) != 0  # type: ignore[no-any-return]
    return np.frombuffer(data, dtype).reshape(shape)  # type: ignore[no-any-return]


def elements(
    data: memoryview, name: str, datatype: str, shape: tuple[int, ...]
) -> list[str | bytes]:
    """Return the BYTES elements in this data; raises BadRequest where they are not so many."""
    whole, count = bytes(data), math.prod(shape)
    found: list[str | bytes] = []
    at = 0
    while at + 4 <= len(whole) and len(found) < count:
        (size,) = _LENGTH.unpack_from(whole, at)
        at += 4 + size
        found.append(whole[at - size : at])
    if at != len(whole) or len(found) != count:
        raise BadRequest(
            f"input {name!r}: its binary data must be {count} elements of {datatype}, each behind "
            "its length as a little-endian uint32, and are not"
        )
    return found


_LENGTH = struct.Struct("<I")
