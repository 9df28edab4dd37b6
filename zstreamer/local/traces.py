"""The spans of a `ThreadedStreamer`, the same as those of a cluster: call, queue, batch, model.

Here an item leaves the queue for its batch at once, so the batch begins where its queue ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zstreamer.local.calls import Call, Item
from zstreamer.tracing import batch
from zstreamer.tracing import call as tracing
from zstreamer.tracing.context import Waiting

if TYPE_CHECKING:
    from zstreamer.tracing.otel import BatchSpans

MODEL = "default"
"""What spans call its model, as those of a `Streamer` do."""


class Traces:
    """Those of one streamer's calls. Callers' threads and the model's share it."""

    def __init__(self) -> None:
        self._seen = False

    def begin(self, call: Call) -> None:
        """A call is made here and now."""
        call.trace = tracing.begin(MODEL, len(call.items))
        if call.trace is not None:
            self._seen = True

    def batch(self, items: Sequence[Item], taken: float) -> BatchSpans | None:
        """Return the spans of a batch whose run begins now; None where no item is traced.

        Args:
            items: of the batch.
            taken: when they left the queue, in monotonic seconds.
        """
        if not self._seen:
            return None
        arrived = time.time_ns() - int((time.monotonic() - taken) * 1e9)
        return batch.begin(MODEL, [_waiting(item, taken, arrived) for item in items])


def _waiting(item: Item, taken: float, arrived: int) -> Waiting | None:
    trace = item.call.trace
    return None if trace is None else Waiting(trace.context, taken - item.arrived, arrived)
