"""What each model takes and gives, remembered while its workers are away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from zstreamer.signature import Tensor, understood
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.api.problem import Refused

Signature: TypeAlias = "tuple[Sequence[Tensor] | None, Sequence[Tensor] | None]"
"""Inputs and outputs; None where the model declares none."""

MANY = 10_000
"""Models after which those remembered are forgotten; they come back with the next requests."""


class Signatures:
    """Knows the signature of each model that was ready once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, object, Signature]] = {}

    def of(self, name: str, model: snapshots.Model) -> Signature | None:
        """Return the signature of a model; None where it has never been ready.

        Args:
            name: the model's.
            model: what the snapshot says of it. Only a warm worker tells a signature, so while
                there is none (one has died, another one starts) the last one holds.

        Raises:
            Refused: what the model declares is nothing that is known here.
        """
        known = self._known.get(name)
        if not snapshots.is_ready(model):
            return None if known is None else known[2]
        inputs, outputs = model.get("inputs"), model.get("outputs")
        if known is None or known[0] != inputs or known[1] != outputs:
            if len(self._known) >= MANY:
                self._known.clear()
            known = self._known[name] = (inputs, outputs, _understood(name, inputs, outputs))
        return known[2]


def _understood(name: str, inputs: object, outputs: object) -> Signature:
    try:
        return understood(inputs), understood(outputs)
    except (ValueError, TypeError) as error:
        raise Refused(
            501, f"model {name!r} declares what this server cannot read: {error}"
        ) from None
