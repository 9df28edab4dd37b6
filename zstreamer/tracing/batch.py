"""The spans of items in the model's process: their time in the queue, their batch, the model's run.

call ─┬─ queue                    of each call: how long the broker had no worker for its items
      ├─ batch ── model           of the first call alone: from the first item's arrival to the end
      └─ model ┄┄ link ┄> batch   of each other call

A batch is of many calls, and a span has one parent: the batch belongs to the first call of those
that are traced, and is linked to all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zstreamer.tracing.call import uses_api
from zstreamer.tracing.context import Waiting

if TYPE_CHECKING:
    from zstreamer.tracing.otel import BatchSpans


def begin(model: str, items: Sequence[Waiting | None]) -> BatchSpans | None:
    """Return the spans of a batch whose run begins now; None where none of its items is traced.

    Args:
        model: the name that clients ask for.
        items: one for each item of the batch, None for those that are not traced.
    """
    if items.count(None) == len(items) or not uses_api():
        return None
    from zstreamer.tracing.otel import BatchSpans

    return BatchSpans(model, items)
