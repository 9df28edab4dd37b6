"""The calls of a `ThreadedStreamer` and their items, as long as they are open."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from copy import copy

from zstreamer import failure
from zstreamer.errors import DeadlineExceeded, ZStreamerError
from zstreamer.tracing.context import CallTrace


class Call:
    """Items that were passed together.

    Args:
        items: one at least, or none.
        timeout: seconds that it may take.
        priority: higher goes first.
        keep_errors: whether each item's error is to stand in its place.

    Attributes:
        begun: some of it has been given to the model.
        deadline: monotonic seconds.
        trace: None where the call is not traced.
        wake: tells the caller, from any thread, that the call has ended.
    """

    __slots__ = (
        "__weakref__",
        "begun",
        "deadline",
        "done",
        "error",
        "items",
        "keep_errors",
        "left",
        "outputs",
        "priority",
        "timeout",
        "trace",
        "wake",
    )

    def __init__(
        self, items: Sequence[object], timeout: float, priority: int, keep_errors: bool
    ) -> None:
        self.items = items
        self.timeout = timeout
        self.priority = priority
        self.keep_errors = keep_errors
        self.outputs: list[object] = [None] * len(items)
        self.left = len(items)
        self.deadline = time.monotonic() + timeout
        self.begun = False
        self.error: ZStreamerError | None = None
        self.done = False
        self.trace: CallTrace | None = None
        self.wake: Callable[[], None] = _nothing

    def results(self) -> list[object]:
        """Return the outputs, or raise what the call failed with."""
        if self.error is not None:
            raise self.error
        if self.keep_errors:
            return [
                _at(index, output) if isinstance(output, BaseException) else output
                for index, output in enumerate(self.outputs)
            ]
        return self.outputs

    def settled(self) -> list[object]:
        """Return an output or an error for each item, also where the call as a whole failed."""
        return self.results() if self.error is None else [copy(self.error) for _ in self.items]

    def size(self) -> int:
        """Return 0: the outputs have no bytes of their own here."""
        return 0

    def settles(self, index: int, output: object) -> bool:
        """Keep what has become of an item; return whether the call ends with it."""
        self.outputs[index] = output
        self.left -= 1
        return not self.left or (isinstance(output, BaseException) and not self.keep_errors)

    def end_trace(self) -> None:
        """The call has ended."""
        if self.trace is not None:
            failed = sum(isinstance(output, BaseException) for output in self.outputs)
            self.trace.end(self.error, failed)

    def first_error(self) -> ZStreamerError | None:
        """Return the error of the lowest index that has one, where errors are to be raised."""
        if self.keep_errors:
            return None
        for index, output in enumerate(self.outputs):
            if isinstance(output, BaseException):
                return _at(index, output)
        return None


class Item:
    """One input of a call."""

    __slots__ = ("arrived", "call", "cost", "id", "index", "value")

    def __init__(self, id: int, call: Call, index: int, value: object, arrived: float) -> None:
        self.id = id
        self.call = call
        self.index = index
        self.value = value
        self.arrived = arrived
        self.cost = 0.0

    @property
    def deadline(self) -> float:
        """Its call's."""
        return self.call.deadline


class Backlog:
    """The items that wait, for the case that some are more urgent than others."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}
        self._mixed = False

    def put(self, item: Item) -> None:
        """Note an item that waits."""
        self._items[item.id] = item
        self._mixed = self._mixed or item.call.priority != 0

    def take(self, planned: Sequence[Item]) -> Sequence[Item]:
        """Return as many as were planned: of the highest priority, then the oldest."""
        if self._mixed:
            planned = heapq.nsmallest(len(planned), self._items.values(), _urgency)
        for item in planned:
            del self._items[item.id]
        if not self._items:
            self._mixed = False
        return planned


def _urgency(item: Item) -> tuple[int, int]:
    return -item.call.priority, item.id


def late(call: Call) -> DeadlineExceeded:
    """Return the error of a call whose time is over."""
    return DeadlineExceeded(f"no answer within {call.timeout:.3g} s")


def _at(index: int, raised: BaseException) -> ZStreamerError:
    error = failure.returned(raised)
    error.index = index
    return error


def _nothing() -> None: ...
