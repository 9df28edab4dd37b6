"""Where the chunks of a job go that a `ThreadedStreamer` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zstreamer.client.job import Encoded, Window
from zstreamer.client.port import Ended
from zstreamer.client.settings import positive_seconds
from zstreamer.errors import ZStreamerError
from zstreamer.local.threaded import Batches
from zstreamer.tracing.call import here
from zstreamer.tracing.context import Under

AHEAD = 4
"""Batches of which items are under way: one runs, and its outputs and the next ones wait."""


class BatchesPort:
    """The model of a `ThreadedStreamer`.

    Args:
        batches: what runs it.
        timeout, priority: of the calls, as for `Client.map`.
    """

    def __init__(self, batches: Batches, timeout: float, priority: int) -> None:
        self._batches = batches
        self._timeout = positive_seconds("timeout", timeout)
        self._priority = priority
        self._trace = here()  # a chunk may be submitted by another thread

    def encode(self, items: Sequence[object], first: int) -> list[Encoded]:  # noqa: ARG002
        """Return the items as they are: nothing is sent."""
        return [Encoded(item) for item in items]

    def window(self) -> Window:
        """Return room for some batches."""
        return Window(AHEAD * self._batches.batch_size)

    def start(self, payloads: list[Any], done: Callable[[Ended], None]) -> Callable[[], None]:
        """Submit a chunk as one call."""
        with Under(self._trace):
            return self._batches.start(payloads, self._timeout, self._priority, done)

    def probe(self, done: Callable[[ZStreamerError | None], None]) -> None:
        """Say that the model is there: it is in this process."""
        done(None)
