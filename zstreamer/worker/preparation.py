"""Payloads made ready for predict: decoded, prepared and weighed, many at once if the model can.

payloads ─ decode ─> items ─ prepare_batch, or prepare for each ─> values ─ cost ─> `Ready`

What goes wrong with an item is `Raised` in its place. Where `prepare_batch` raises, each of its
items is prepared alone, so that a bad one harms only itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from zstreamer import failure
from zstreamer.model import Loaded

FIRST, MOST = 16, 256
"""Items that `prepare_batch` is given at once: to begin with, and at most."""

BRIEF, LONG = 0.05, 0.2
"""Seconds of one call after which the next is given twice as many items, or half as many: who
waits for the first of them waits for all, and a process that says nothing for long looks hung."""


class Ready(NamedTuple):
    """An item that predict can be given, and what it costs: 0 where the model does not say."""

    value: object
    cost: float


class Raised(NamedTuple):
    """What was raised for an item; an item may be an exception itself."""

    error: BaseException


Outcome: TypeAlias = Ready | Raised


def prepared(model: Loaded, items: Sequence[object]) -> list[object]:
    """Return what the model makes of each item before predict, or `Raised` in its place."""
    if model.prepare_batch is None or not items:
        return [_one(model, item) for item in items]
    try:
        values = list(model.prepare_batch(list(items)))
        if len(values) == len(items):
            return [Raised(each) if isinstance(each, BaseException) else each for each in values]
    except BaseException as error:  # noqa: BLE001  # the user's code may raise anything
        if failure.fatal(error):
            return [Raised(error)] * len(items)
    return [_one(model, item) for item in items]


def _one(model: Loaded, item: object) -> object:
    try:
        return model.prepare(item)
    except BaseException as error:  # noqa: BLE001  # as above
        return Raised(error)


class Preparation:
    """Prepares payloads for one model.

    Args:
        model: whose `prepare` and `cost` are meant.
        decode: makes an item of a payload.

    Attributes:
        at_once: payloads that the next `run` should be given at most.
    """

    def __init__(self, model: Loaded, decode: Callable[[bytes | memoryview], object]) -> None:
        self._model = model
        self._decode = decode
        self._in_batches = model.prepare_batch is not None
        self.at_once = FIRST if self._in_batches else 1 if model.looks_on_arrival else MOST

    def run(self, payloads: Sequence[bytes | memoryview]) -> list[Outcome]:
        """Return what each payload has become, or what was raised for it."""
        if not self._model.looks_on_arrival:
            found = map(self._decoded, payloads)
            return [each if isinstance(each, Raised) else Ready(each, 0.0) for each in found]
        begun = time.monotonic()
        items = [self._decoded(payload) for payload in payloads]
        if self._model.prepares:
            sound = [item for item in items if not isinstance(item, Raised)]
            values = iter(prepared(self._model, sound))
            items = [each if isinstance(each, Raised) else next(values) for each in items]
        outcomes = [self._weighed(item) for item in items]
        if self._in_batches:
            self._adapt(len(items), time.monotonic() - begun)
        return outcomes

    def _decoded(self, payload: bytes | memoryview) -> object:
        try:
            return self._decode(payload)
        except BaseException as error:  # noqa: BLE001  # a private payload runs the user's code
            return Raised(error)

    def _weighed(self, value: object) -> Outcome:
        if isinstance(value, Raised):
            return value
        if self._model.cost is None:
            return Ready(value, 0.0)
        try:
            return Ready(value, _finite(self._model.cost(value)))
        except BaseException as error:  # noqa: BLE001  # the user's code may raise anything
            return Raised(error)

    def _adapt(self, count: int, seconds: float) -> None:
        if seconds > LONG:
            self.at_once = max(1, count // 2)
        elif seconds < BRIEF and count >= self.at_once:
            self.at_once = min(MOST, 2 * self.at_once)


def _finite(cost: float) -> float:
    cost = float(cost)
    if not math.isfinite(cost):
        raise ValueError(f"cost() returned {cost}; it must return a finite number")
    return cost
