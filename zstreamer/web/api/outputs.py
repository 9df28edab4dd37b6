"""Writes a model's outputs as tensors of the Open Inference Protocol.

outputs of the items ──> a column for each tensor ──> arrays or text ──> JSON or binary data
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from zstreamer.errors import PredictError
from zstreamer.signature import Tensor
from zstreamer.web.api import json
from zstreamer.web.api.datatypes import NUMPY, numpy
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.tensors import fits

if TYPE_CHECKING:
    import numpy as np

UNNAMED = "output"
"""What the one output of a model is called that declares none."""


class OutputTensor(NamedTuple):
    """A tensor of a response; ``values`` as in `zstreamer.web.api.tensors.InputTensor`."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: np.ndarray | Sequence[str | bytes]


def made(
    outputs: Sequence[object], declared: Sequence[Tensor] | None, names: Sequence[str]
) -> list[OutputTensor]:
    """Return the tensors of these names.

    Args:
        outputs: one for each item.
        declared: the model's outputs; None where it declares none, and what they are is inferred.
        names: what to return, in order; declared, if there is anything declared.

    Raises:
        Refused: the outputs are not as the model declares them.
    """
    if declared is None:
        return [_inferred(outputs, name) for name in names]
    tensors = {each.name: each for each in declared}
    return [_declared(_column(outputs, name, len(tensors)), tensors[name]) for name in names]


def _column(outputs: Sequence[object], name: str, of: int) -> Sequence[object]:
    if of == 1:
        return outputs
    try:
        return [each[name] for each in outputs]  # type: ignore[index]  # whatever it is
    except (TypeError, KeyError, IndexError):
        raise _unfit(name, "each output must be a dict of the tensors by name") from None


def _unfit(name: str, why: str) -> Refused:
    return Refused(500, f"the model's output {name!r} is not as it declares it: {why}")


def _declared(column: Sequence[object], tensor: Tensor) -> OutputTensor:
    if tensor.datatype == "BYTES":
        shape, flat = _texts(column, tensor)
        return OutputTensor(tensor.name, "BYTES", shape, flat)
    array = _cast(_stacked(column, tensor.name), tensor)
    if not fits(array.shape[1:], tensor.shape):
        words = f"shape {list(array.shape[1:])}, but {list(tensor.shape)} is declared"
        raise _unfit(tensor.name, words)
    return OutputTensor(tensor.name, tensor.datatype, array.shape, array)


def _stacked(column: Sequence[object], name: str) -> np.ndarray:
    np = numpy()
    try:
        array = np.array(column)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise _unfit(name, "the items' values are not numbers, or differ in shape; pad them")
    return array  # type: ignore[no-any-return]  # it is made just above


def _cast(array: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Return the array in the declared datatype, if that keeps what it says."""
    np = numpy()
    dtype = np.dtype(NUMPY[tensor.datatype])
    if array.dtype == dtype:
        return array
    if dtype.kind in "iu" and array.dtype.kind in "biu":
        bounds = np.iinfo(dtype)
        if array.size and (int(array.min()) < bounds.min or int(array.max()) > bounds.max):
            raise _unfit(tensor.name, f"a number is out of range for {tensor.datatype}")
    elif not np.can_cast(array.dtype, dtype, "same_kind"):
        raise _unfit(tensor.name, f"{array.dtype}, but {tensor.datatype} is declared")
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _texts(column: Sequence[object], tensor: Tensor) -> tuple[list[int], list[str | bytes]]:
    """Return shape and elements of nested lists of text."""
    shape, level = [len(column)], list(column)
    for declared in tensor.shape:
        sizes = {len(each) if isinstance(each, list | tuple) else -2 for each in level}
        if len(sizes) != 1 or (size := sizes.pop()) == -2 or declared not in (-1, size):
            words = f"lists of shape {list(tensor.shape)} of text, equally long in all items"
            raise _unfit(tensor.name, f"it must be {words}")
        shape.append(size)
        level = list(chain.from_iterable(level))  # type: ignore[arg-type]  # lists, as checked
    if not set(map(type, level)) <= {str, bytes}:
        raise _unfit(tensor.name, "an element is neither text nor bytes")
    return shape, level  # type: ignore[return-value]  # as checked


def _inferred(outputs: Sequence[object], name: str) -> OutputTensor:
    """Return the outputs of a model that declares none, as tensors."""
    kinds = set(map(type, outputs))
    if kinds <= {str, bytes}:
        return OutputTensor(name, "BYTES", [len(outputs)], list(outputs))  # type: ignore[arg-type]  # text
    array = numpy().array(outputs) if kinds in _PLAIN else _same_arrays(outputs)
    rounded = kinds == {int} and array is not None and array.dtype.kind == "f"
    if array is not None and not rounded and (code := array.dtype.str[1:]) in _DATATYPES:
        datatype = _DATATYPES[code]
        return OutputTensor(name, datatype, array.shape, array.astype(NUMPY[datatype], copy=False))
    written = [_as_json(each, index) for index, each in enumerate(outputs)]
    return OutputTensor(name, "BYTES", [len(outputs)], written)


_PLAIN = ({bool}, {int}, {float}, {int, float})
"""Types of plain numbers that become BOOL, INT64 and FP64."""

_DATATYPES = {dtype[1:]: datatype for datatype, dtype in NUMPY.items()}


def _same_arrays(outputs: Sequence[object]) -> np.ndarray | None:
    """Return the outputs as one array where they are arrays or scalars of one type and shape."""
    forms = {(getattr(each, "shape", None), getattr(each, "dtype", None)) for each in outputs}
    shape, dtype = forms.pop()
    if forms or shape is None or dtype is None:
        return None
    return numpy().array(outputs)  # type: ignore[no-any-return]


def _as_json(output: object, index: int) -> str:
    try:
        return json.dumps(output).decode()
    except TypeError as error:
        bad = PredictError(
            f"the model's output for item {index} cannot be written as JSON: {error}; have the "
            "model return another type, or declare its outputs",
            "BadOutput",
        )
        bad.index = index
        raise bad from None


def data(tensor: OutputTensor) -> object:
    """Return a tensor's elements for JSON, flat; raises `Refused` for bytes that are no text."""
    if tensor.datatype != "BYTES":
        return tensor.values.ravel()  # type: ignore[union-attr]  # an array, by its datatype
    try:
        return [each.decode() if isinstance(each, bytes) else each for each in tensor.values]
    except UnicodeDecodeError:
        raise Refused(
            406, f"output {tensor.name!r} is not UTF-8; ask for it with binary_data: true"
        ) from None


def binary(tensor: OutputTensor) -> bytes:
    """Return a tensor's elements as binary data."""
    if tensor.datatype != "BYTES":
        array: np.ndarray = tensor.values  # type: ignore[assignment]  # an array, by its datatype
        return array.astype(NUMPY[tensor.datatype], copy=False).tobytes()
    parts = [each.encode() if isinstance(each, str) else each for each in tensor.values]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(each)), each) for each in parts))


_LENGTH = struct.Struct("<I")
