"""What a model takes and gives, for servers that speak of tensors: names, datatypes and shapes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

DATATYPES: Final = (
    *("BOOL", "BYTES", "FP16", "FP32", "FP64"),
    *("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
)
"""Those of the Open Inference Protocol that this project carries."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model.

        class Scores(ManagedModel):
            inputs = [Tensor("tokens", "INT64", [128])]
            outputs = [Tensor("score", "FP32")]

    With one input an item is its value, with several a dict of them by name; so are outputs. A
    value is a numpy array of the datatype, or text where the datatype is BYTES.

    Args:
        name: what callers call it.
        datatype: BOOL, UINT8 … UINT64, INT8 … INT64, FP16, FP32, FP64 or BYTES.
        shape: of one item, without the batch; -1 where a length may vary.
        text: whether BYTES are UTF-8 and the model sees str; where not it sees bytes.

    Raises:
        ValueError: a datatype or a shape that there is not; the message says how to fix it.
    """

    name: str
    datatype: str = "BYTES"
    shape: Sequence[int] = ()
    text: bool = True

    def __post_init__(self) -> None:
        name: object = self.name  # whatever a caller without type checks gives
        if not isinstance(name, str) or not name:
            raise ValueError(f"a tensor's name must be some text, not {self.name!r}")
        if self.datatype not in DATATYPES:
            known = ", ".join(DATATYPES)
            raise ValueError(f"tensor {self.name!r}: no datatype {self.datatype!r}; use {known}")
        shape = tuple(self.shape) if isinstance(self.shape, list | tuple) else None
        if shape is None or not all(type(size) is int and size >= -1 for size in shape):
            raise ValueError(
                f"tensor {self.name!r}: shape {self.shape!r} must be a list of whole numbers, "
                "-1 where a length may vary"
            )
        object.__setattr__(self, "shape", shape)

    def plain(self) -> dict[str, object]:
        """Return it in plain values, as it travels."""
        return {
            "name": self.name,
            "datatype": self.datatype,
            "shape": list(self.shape),
            "text": self.text,
        }


MAX_EXAMPLE = 1000
"""Characters of an example as JSON; a longer one is of no use to a page."""


def example_text(example: object) -> str:
    """Return the first item of a model's example as the JSON that a caller over HTTP would send.

    Args:
        example: as a model has it, None for none. Bytes become ``{"b64": …}``, arrays lists.

    Returns:
        The text; empty where there is none, or it is no JSON or too long.
    """
    try:
        item = next(iter(() if example is None else example))  # type: ignore[call-overload]
        text = json.dumps(item, default=_plain, ensure_ascii=False, allow_nan=False)
        text.encode()
    except Exception:  # noqa: BLE001  # of the user's classes, which may raise anything
        return ""
    return text if len(text) <= MAX_EXAMPLE else ""


def _plain(value: Any) -> object:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if value.size > MAX_EXAMPLE:  # an array
        raise ValueError
    return value.tolist()


def declared(given: object) -> list[dict[str, object]] | None:
    """Return the plain form of what a model declares, None where it declares nothing.

    Raises:
        ValueError: it is no sequence of `Tensor`s of different names.
    """
    if given is None:
        return None
    if not isinstance(given, list | tuple) or not all(isinstance(each, Tensor) for each in given):
        raise ValueError(
            f"inputs and outputs must be lists of zstreamer.Tensor, not {given!r:.100}; "
            'write [Tensor("pixels", "FP32", [224, 224, 3])]'
        )
    if not given or len({each.name for each in given}) < len(given):
        raise ValueError(f"inputs and outputs need one name each, not {given!r:.200}")
    return [each.plain() for each in given]


def understood(plain: object) -> tuple[Tensor, ...] | None:
    """Return the tensors of a plain form that came over a network; None where there are none.

    Raises:
        ValueError: it is no such form.
    """
    if plain is None:
        return None
    if not isinstance(plain, list) or not all(isinstance(each, Mapping) for each in plain):
        raise ValueError(f"{plain!r:.100} is not a list of tensors")
    return tuple(
        Tensor(each.get("name"), each.get("datatype"), each.get("shape"), each.get("text") is True)
        for each in plain
    )
