"""The traces of items in the model's process, from their arrival to the end of their batch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from zstreamer.tracing import batch
from zstreamer.tracing.context import Waiting, of_headers

if TYPE_CHECKING:
    from zstreamer.tracing.otel import BatchSpans
    from zstreamer.wire.messages import Traced

_NOTHING: AbstractContextManager[None] = nullcontext()


class Traces:
    """Those of one process's items. The thread that reads and that of the model share it.

    Attributes:
        model: the name that clients ask for.
        seen: whether any item was traced.
    """

    def __init__(self) -> None:
        self.model = ""
        self.seen = False
        self._waiting: dict[int, Waiting] = {}
        self._running: dict[int, BatchSpans] = {}

    def come(self, rows: Iterable[Traced]) -> None:
        """Traced items are about to come."""
        self.seen = True
        now = time.time_ns()
        for parent, state, ids, waited in rows:
            context = of_headers(parent, state)
            if context is not None:
                item = Waiting(context, waited / 1e6, now)
                self._waiting.update(dict.fromkeys(ids, item))

    def drop(self, ids: Iterable[int]) -> None:
        """These items will not run."""
        if self._waiting:
            for id in ids:
                self._waiting.pop(id, None)

    def running(self, ids: Sequence[int]) -> AbstractContextManager[None]:
        """Return the block in which the model begins a batch of these."""
        if not self._waiting:
            return _NOTHING
        spans = batch.begin(self.model, [self._waiting.pop(id, None) for id in ids])
        if spans is None:
            return _NOTHING
        self._running[ids[0]] = spans
        return spans

    def ended(self, ids: Sequence[int], outputs: Sequence[object]) -> None:
        """The batch of these is done."""
        if self._running and ids:
            spans = self._running.pop(ids[0], None)
            if spans is not None:
                spans.end(outputs)
