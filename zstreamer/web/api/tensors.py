"""Reads tensors of the Open Inference Protocol, as JSON or as binary data, and their rows.

    JSON     {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}
    binary   {…, "parameters": {"binary_data_size": 24}}, and the bytes behind the JSON

In binary data numbers are little-endian and in C order, and each BYTES element follows its length
as a uint32. https://github.com/triton-inference-server/server, docs/protocol, says more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from zstreamer.errors import BadRequest
from zstreamer.signature import DATATYPES
from zstreamer.web.api import binary
from zstreamer.web.api.binary import Tail
from zstreamer.web.api.datatypes import NUMPY, numpy
from zstreamer.web.api.problem import Refused

if TYPE_CHECKING:
    import numpy as np

MAX_DIMENSIONS = 32
"""As many as every release of numpy takes."""


class InputTensor(NamedTuple):
    """A tensor of a request.

    ``values`` is an array of the shape; where the datatype is BYTES a flat list, of str or bytes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: np.ndarray | list[str | bytes]


def read(plain: object, tail: Tail, max_rows: int) -> InputTensor:
    """Return a tensor of a request.

    Args:
        plain: its JSON.
        tail: whence it takes its binary data, if it has any.
        max_rows: items that a request may have.

    Raises:
        BadRequest: it is no such tensor; the message names it and says how to fix it.
        Refused: it has too many rows, or there is no numpy to hold it.
    """
    if not isinstance(plain, Mapping) or not isinstance(plain.get("name"), str):
        raise BadRequest(f"an input must be an object with a name, not {plain!r:.100}")
    name, datatype = plain["name"], plain.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise BadRequest(f"input {name!r}: datatype {datatype!r:.50} is not one of {known}")
    shape = _shape(plain.get("shape"), name, max_rows)
    values = _values(plain, tail, name, datatype, shape)
    return InputTensor(name, datatype, shape, values)


def _shape(shape: object, name: str, max_rows: int) -> tuple[int, ...]:
    if (
        not isinstance(shape, list)
        or not all(type(size) is int and size >= 0 for size in shape)
        or not 1 <= len(shape) <= MAX_DIMENSIONS
    ):
        raise BadRequest(
            f"input {name!r}: shape {shape!r:.50} must be a list of whole numbers, the number of "
            "rows first; a single row is [1, …]"
        )
    if shape[0] > max_rows:
        raise Refused(413, f"{shape[0]} rows are more than {max_rows}; send fewer at a time")
    if 0 in shape:
        raise BadRequest(f"input {name!r}: shape {shape!r:.50} has no elements; send some")
    return tuple(shape)


def _values(
    plain: Mapping[str, object], tail: Tail, name: str, datatype: str, shape: tuple[int, ...]
) -> np.ndarray | list[str | bytes]:
    parameters = plain.get("parameters")
    named = parameters if isinstance(parameters, Mapping) else {}
    if "shared_memory_region" in named:
        raise Refused(501, f"input {name!r}: shared memory is not supported; send the data itself")
    if "binary_data_size" in named:
        data = tail.take(named["binary_data_size"], name)
        read = binary.elements if datatype == "BYTES" else binary.numbers
        return read(data, name, datatype, shape)
    if not isinstance(plain.get("data"), list):
        raise BadRequest(f"input {name!r} has neither a list of data nor a binary_data_size")
    flat = _flat(plain["data"], name, shape)  # type: ignore[arg-type]  # a list, as checked above
    return _texts(flat, name) if datatype == "BYTES" else _numbers(flat, name, datatype, shape)


def _flat(data: list[object], name: str, shape: tuple[int, ...]) -> list[object]:
    """Return the elements of data, which may be flat or nested as the shape says."""
    flat = data
    if data and type(data[0]) is list:
        level: list[object] = [data]
        for size in shape:
            if any(type(each) is not list or len(each) != size for each in level):
                raise BadRequest(f"input {name!r}: its data are not nested as shape {list(shape)}")
            level = list(chain.from_iterable(level))  # type: ignore[arg-type]  # lists, as checked
        flat = level
    if len(flat) != math.prod(shape):
        raise BadRequest(
            f"input {name!r}: {len(flat)} values, but shape {list(shape)} has {math.prod(shape)}"
        )
    return flat


def _texts(flat: list[object], name: str) -> list[str | bytes]:
    if set(map(type, flat)) != {str}:
        raise BadRequest(f"input {name!r}: BYTES in JSON must be text; send others as binary data")
    return flat  # type: ignore[return-value]  # all str, as checked


def _numbers(flat: list[object], name: str, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    np = numpy()
    dtype = np.dtype(NUMPY[datatype])
    kinds = set(map(type, flat))
    if not kinds <= _TYPES[dtype.kind]:
        odd = next(each for each in flat if type(each) not in _TYPES[dtype.kind])
        raise BadRequest(f"input {name!r}: {odd!r:.50} is no {datatype}")
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if min(flat) < bounds.min or max(flat) > bounds.max:  # type: ignore[type-var]  # integers
            raise BadRequest(f"input {name!r}: a number is out of range for {datatype}")
    with np.errstate(over="ignore"):
        array = np.array(flat, dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest(f"input {name!r}: a number is out of range for {datatype}")
    return array.reshape(shape)  # type: ignore[no-any-return]


_TYPES: Mapping[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
}
"""What an element in JSON may be; 1 is no BOOL, and 1.0 no INT64."""


def rows(given: InputTensor, text: bool) -> list[object]:
    """Return a tensor's rows, as a model sees them.

    A row of one dimension or more is an array, or (nested) lists of text; one of none is a plain
    number, bool, text or bytes.

    Args:
        given: the tensor.
        text: whether BYTES are to be str; where not they are bytes.

    Raises:
        BadRequest: text is not UTF-8.
    """
    if given.datatype != "BYTES":
        array: np.ndarray = given.values  # type: ignore[assignment]  # the datatype says so
        return array.tolist() if len(given.shape) == 1 else list(array)
    values: list[object] = _as_text(given) if text else _as_bytes(given)
    for size in reversed(given.shape[1:]):
        values = [values[at : at + size] for at in range(0, len(values), size)]
    return values


def _as_text(given: InputTensor) -> list[object]:
    try:
        return [each.decode() if type(each) is bytes else each for each in given.values]
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"input {given.name!r}: an element is not UTF-8 ({error}); a model that takes bytes "
            f"says so: inputs = [Tensor({given.name!r}, text=False)]"
        ) from None


def _as_bytes(given: InputTensor) -> list[object]:
    return [each.encode() if isinstance(each, str) else each for each in given.values]


def fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    """Whether a row's shape is one that was declared, where -1 stands for any length."""
    return len(shape) == len(declared) and all(
        wanted in (-1, size) for size, wanted in zip(shape, declared, strict=True)
    )
