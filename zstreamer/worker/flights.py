"""The batches of a model that starts one while the one before computes, on a device of its own.

    model's thread    claim ─> begin ┐          ┌─> end: finish, or split where it failed
    waiting thread                   └─> wait ──┘

The model's thread begins the next batch as soon as there is a plan that may be claimed ahead, so
that the device finds it when it is done with this one; answers are made meanwhile. Another thread
waits for the device, since nothing else tells that it is done.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

from zstreamer.worker.runner import Begun, Runner

DEPTH = 2
"""Batches that are begun and not ended at most: one computes, one is ready to."""


class Flight:
    """One batch on its way.

    Attributes:
        ids: of its items.
        done: whether the device is done with it.
    """

    def __init__(self, ids: list[int], begun: Begun) -> None:
        self.ids, self.begun = ids, begun
        self.start = self.end = time.perf_counter()
        self.done = False


class Flights:
    """The batches that are begun and not ended, in order.

    Args:
        runner: of the model.
        changed: is held by who calls `free` and `ready`, and notified when a batch is done.
    """

    def __init__(self, runner: Runner, changed: threading.Condition) -> None:
        self._runner = runner
        self._changed = changed
        self._flights: deque[Flight] = deque()
        self._last_end = 0.0
        self._waiting: queue.SimpleQueue[Flight] = queue.SimpleQueue()
        threading.Thread(target=self._wait, name="waiter", daemon=True).start()

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def ready(self) -> bool:
        """Whether the first batch can be ended."""
        return bool(self._flights) and self._flights[0].done

    def begin(self, ids: list[int], items: Sequence[object], once: Sequence[bool]) -> None:
        """Start a batch behind the others."""
        start = time.perf_counter()
        flight = Flight(ids, self._runner.begin(items, once))
        flight.start = start
        if flight.begun.first is None:
            flight.done = True  # it runs when it is ended
        else:
            self._waiting.put(flight)
        self._flights.append(flight)

    def end(self) -> tuple[list[int], list[object], float]:
        """Return the first batch's items, their outputs, and the seconds that it took alone.

        Raises:
            ModelBroken: as `Runner.run`.
        """
        flight = self._flights[0]
        started = flight.begun.first is not None
        outputs = self._runner.end(flight.begun)
        self._flights.popleft()
        end = flight.end if started else time.perf_counter()
        seconds = end - max(flight.start, self._last_end)
        self._last_end = end
        return flight.ids, outputs, max(0.0, seconds) if self._runner.clean else 0.0

    def _wait(self) -> None:
        while True:
            flight = self._waiting.get()
            flight.begun.wait()
            flight.end = time.perf_counter()
            with self._changed:
                flight.done = True
                self._changed.notify()
