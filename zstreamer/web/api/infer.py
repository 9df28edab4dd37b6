"""The JSON of one request to infer, with what it asks and how it wants to be answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zstreamer.errors import BadRequest
from zstreamer.signature import Tensor
from zstreamer.web.api import outputs, tensors
from zstreamer.web.api.binary import Tail
from zstreamer.web.api.bodies import JSON
from zstreamer.web.api.json import check_single, dumps, loads
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.outputs import UNNAMED, OutputTensor
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.signatures import Signature
from zstreamer.web.api.steps import Response
from zstreamer.web.api.tensors import InputTensor

_HEADERS = [("content-type", JSON)]


class InferRequest:
    """Asks one model for some rows.

    Args:
        head: the JSON.
        tail: the binary data behind it.
        model: its name.
        limits: of this server.

    Attributes:
        version: the one that answers; empty where it may be several.

    Raises:
        BadRequest: it is not such a JSON; the message names what is wrong.
        Refused: it asks for what is not supported.
    """

    def __init__(self, head: memoryview, tail: memoryview, model: str, limits: Limits) -> None:
        plain = _head(head, limits)
        self.version = ""
        self._model = model
        self._limits = limits
        self._tail = Tail(tail)
        self._id: object = plain.get("id")
        self._inputs: list[object] = plain["inputs"]  # type: ignore[assignment]  # a list
        self._parameters = _parameters(plain)
        self._wanted = _wanted(plain, self._parameters)
        self._outputs: Sequence[Tensor] | None = None

    def timeout(self, seconds: float) -> float:
        """Return how long the call may take: what the request says in microseconds, or that."""
        given = self._parameters.get("timeout")
        if given is None:
            return seconds
        if type(given) is not int or given <= 0:
            raise BadRequest(f"parameters.timeout must be whole microseconds, not {given!r:.50}")
        return min(given / 1e6, self._limits.max_timeout)

    def items(self, signature: Signature) -> list[object]:
        """Return an item for each row; raises where the tensors are not as the model declares."""
        inputs, self._outputs = signature
        self._check_wanted()
        most = 1 if inputs is None else len(inputs)
        if len(self._inputs) != most:
            expected = "one input" if inputs is None else _in_words(inputs)
            raise BadRequest(f"{len(self._inputs)} inputs, but the model takes {expected}")
        given = [tensors.read(each, self._tail, self._limits.max_items) for each in self._inputs]
        self._tail.check_used()
        return _undeclared(given[0]) if inputs is None else _items(given, inputs)

    def answer(self, found: Sequence[object]) -> Response:
        """Return the response for these outputs; raises `Refused` where they do not fit."""
        names, binary = self._names()
        made = outputs.made(found, self._outputs, names)
        parts = {each.name: outputs.binary(each) for each in made if binary[each.name]}
        words = {"model_name": self._model}
        if self.version:
            words["model_version"] = self.version
        if self._id is not None:
            words["id"] = self._id  # type: ignore[assignment]  # text, as checked
        words["outputs"] = [_tensor(each, parts.get(each.name)) for each in made]  # type: ignore[assignment]  # more JSON
        head = dumps(words)
        if not parts:
            return Response(200, head, _HEADERS)
        headers = [
            ("content-type", "application/octet-stream"),
            ("inference-header-content-length", str(len(head))),
        ]
        return Response(200, b"".join((head, *parts.values())), headers)

    def _names(self) -> tuple[list[str], Mapping[str, bool]]:
        """Which outputs are wanted, and which of them as binary data."""
        if self._wanted:
            return list(self._wanted), self._wanted
        names = [UNNAMED] if self._outputs is None else [each.name for each in self._outputs]
        return names, dict.fromkeys(names, self._parameters.get("binary_data_output") is True)

    def _check_wanted(self) -> None:
        """Raise BadRequest where an output is wanted that there is not."""
        if self._outputs is None:
            if len(self._wanted) > 1:
                raise BadRequest(
                    f"{len(self._wanted)} outputs were requested from a model that has one"
                )
            return
        known = [each.name for each in self._outputs]
        for name in self._wanted:
            if name not in known:
                raise BadRequest(f"no output {name!r}; the model has {_in_words(self._outputs)}")


def _head(head: memoryview, limits: Limits) -> Mapping[str, object]:
    """Return the object, whose inputs are a list and whose id is text."""
    plain = loads(head, limits.max_nesting)
    if not isinstance(plain, dict) or not isinstance(plain.get("inputs"), list):
        raise BadRequest('the body must be an object with a list of inputs: {"inputs": […]}')
    if bytes(head).count(b'"inputs"') > 1:
        check_single(head, "inputs")
    if not isinstance(plain.get("id", ""), str):
        raise BadRequest(f"id must be text, not {plain['id']!r:.50}")
    return plain


def _parameters(plain: Mapping[str, object]) -> Mapping[str, object]:
    """Return the parameters of a request or an output."""
    found = plain.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise BadRequest(f"parameters must be an object, not {found!r:.50}")
    if found.get("sequence_id"):
        raise Refused(501, "sequences are not supported; leave sequence_id out")
    return found


def _wanted(plain: Mapping[str, object], parameters: Mapping[str, object]) -> dict[str, bool]:
    """Return which outputs are wanted and whether as binary data; empty where all are."""
    asked = plain.get("outputs")
    if not isinstance(asked, list | None):
        raise BadRequest(f"outputs must be a list of objects with names, not {asked!r:.50}")
    default = parameters.get("binary_data_output") is True
    found: dict[str, bool] = {}
    for each in asked or ():
        name = each.get("name") if isinstance(each, Mapping) else None
        if not isinstance(name, str) or name in found:
            raise BadRequest(f"outputs need one name each, not {each!r:.100}")
        own = _parameters(each)
        if "shared_memory_region" in own or own.get("classification"):
            raise Refused(
                501, f"output {name!r}: classification and shared memory are not supported"
            )
        binary = own.get("binary_data", default)
        found[name] = binary is True
    return found


def _undeclared(given: InputTensor) -> list[object]:
    """The rows of any tensor. Text often comes as a column, which is one text a row as well."""
    if given.datatype == "BYTES" and given.shape[1:] == (1,):
        given = given._replace(shape=given.shape[:1])
    return tensors.rows(given, text=True)


def _items(given: Sequence[InputTensor], inputs: Sequence[Tensor]) -> list[object]:
    """Return the rows of one input, or dicts of rows by name."""
    named = {each.name: each for each in given}
    columns = {}
    for tensor in inputs:
        if tensor.name not in named:
            names = ", ".join(map(repr, named))
            raise BadRequest(f"no input {tensor.name!r} but {names}; send {_in_words(inputs)}")
        columns[tensor.name] = tensors.rows(_checked(named[tensor.name], tensor), tensor.text)
    if len(columns) == 1:
        return columns.popitem()[1]
    numbers = {len(column) for column in columns.values()}
    if len(numbers) > 1:
        counts = ", ".join(f"{name!r} {len(column)}" for name, column in columns.items())
        raise BadRequest(f"the inputs differ in rows, the first dimension: {counts}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _checked(given: InputTensor, tensor: Tensor) -> InputTensor:
    """Return a tensor in its declared shape; raises BadRequest where it is another one."""
    if given.datatype != tensor.datatype:
        raise BadRequest(f"input {given.name!r} is {given.datatype}; send {tensor.datatype}")
    row = given.shape[1:]
    if row == (1,) and not tensor.shape:  # a column is one value a row as well
        if not isinstance(given.values, list):
            given = given._replace(values=given.values.reshape(-1))
        return given._replace(shape=given.shape[:1])
    if not tensors.fits(row, tensor.shape):
        raise BadRequest(
            f"input {given.name!r} has shape {list(given.shape)}; send "
            f"{[-1, *tensor.shape]}, the number of rows first (a single row is 1)"
        )
    return given


def _in_words(declared: Sequence[Tensor]) -> str:
    return ", ".join(f"{t.name!r} ({t.datatype} {[-1, *t.shape]})" for t in declared)


def _tensor(made: OutputTensor, binary: bytes | None) -> dict[str, object]:
    """Return the JSON of an output, with its data where they do not follow as binary data."""
    found: dict[str, object] = {
        "name": made.name,
        "datatype": made.datatype,
        "shape": list(made.shape),
    }
    if binary is None:
        found["data"] = outputs.data(made)
    else:
        found["parameters"] = {"binary_data_size": len(binary)}
    return found
