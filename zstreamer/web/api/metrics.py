"""What `/metrics` tells Prometheus of this process: requests, items, seconds, what is in flight.

The hot path only notes what has ended; notes are entered into the metrics by the thousand, each
second, or when somebody asks.

Where several processes serve one port, each request for /metrics meets one of them, and tells of
that one alone. For the sum set ``PROMETHEUS_MULTIPROC_DIR`` to an empty folder before the server
starts: then whichever process is asked tells of all. A gunicorn server should also call
``prometheus_client.multiprocess.mark_process_dead`` in its ``child_exit`` hook.
"""

from __future__ import annotations

import os
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from zstreamer.series import GATEWAY

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MANY = 1024
"""Notes after which they are entered."""

PATIENCE = 1.0
"""Seconds after which they are entered in any case, so that nothing piles up unasked."""

SHORT = 0.02
"""The same for a process that falls idle and is not the one that will be asked."""

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Borders of the histogram: from a trivial model to a call that used its whole budget."""


ANSWERED = (200, 500, 502)
"""Statuses that show that the model exists: it, or a worker's death, has answered."""

MAX_MODELS = 1000
"""Models that are told apart."""


class Measured(Protocol):
    """A request on its way.

    Attributes:
        route: what the metrics call it.
        model: which one it has asked, empty for none.
        items: how many it has asked a model for.
        began: what `Metrics.begin` returned.
    """

    route: str
    model: str
    items: int
    began: float


class Metrics:
    """Counts the requests of one interface."""

    def __init__(self) -> None:
        self._now = time.perf_counter
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self.registry = CollectorRegistry()
        # What is shared is collected from files, so its parts must not be collected again.
        registry = None if self._shared else self.registry
        words = {each.name: (each.words, list(each.labels)) for each in GATEWAY}

        def series(name: str) -> tuple[str, str, list[str]]:
            return name, *words[name if name in words else f"{name}_total"]

        self._requests = Counter(*series("zstreamer_http_requests"), registry=registry)
        self._items = Counter(*series("zstreamer_http_items"), registry=registry)
        self._seconds = Histogram(
            *series("zstreamer_http_request_seconds"), registry=registry, buckets=SECONDS
        )
        self._in_flight = Gauge(
            *series("zstreamer_http_in_flight"), registry=registry, multiprocess_mode="livesum"
        )
        if not self._shared:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
        # Sets and deques are safe among threads without a lock.
        self._open: set[Measured] = set()
        self._notes: deque[tuple[str, str, int, int, float]] = deque()
        self._models: set[str] = {""}
        self._entered = 0.0
        self._shown = -1

    def begin(self, exchange: Measured) -> float:
        """Count a request as in flight; returns the time, in seconds, for `end`."""
        self._open.add(exchange)
        return self._now()

    def end(self, exchange: Measured, status: int) -> None:
        """Note how a request ended; a second time of the same request counts for nothing."""
        if exchange not in self._open:
            return
        self._open.discard(exchange)
        now = self._now()
        model = self._named(exchange.model, status)
        self._notes.append((exchange.route, model, status, exchange.items, now - exchange.began))
        patience = PATIENCE
        if self._shared and not self._open:
            patience = SHORT
            self._show_in_flight()
        if now - self._entered > patience or len(self._notes) >= MANY:
            self._entered = now
            self.enter()

    def _named(self, model: str, status: int) -> str:
        """Return the name under which a model is counted: callers may ask for any."""
        if model not in self._models:
            if status not in ANSWERED or len(self._models) > MAX_MODELS:
                return ""
            self._models.add(model)
        return model

    def refused(self, status: int) -> None:
        """Note a request that a server refused by itself."""
        self._notes.append(("refused", "", status, 0, 0.0))

    def enter(self) -> None:
        """Enter the notes; what another thread takes out at the same time it also enters."""
        requests: Tally[tuple[str, str, int]] = Tally()
        items: Tally[tuple[str, str]] = Tally()
        observe = _Observers(self._seconds)
        with suppress(IndexError):  # empty
            while True:
                route, model, status, count, seconds = self._notes.popleft()
                requests[route, model, status] += 1
                items[route, model] += count
                observe[route, model](seconds)
        for labels, number in requests.items():
            self._requests.labels(*labels).inc(number)
        for names, number in items.items():
            self._items.labels(*names).inc(number)
        self._show_in_flight()

    def _show_in_flight(self) -> None:
        number = len(self._open)
        if number != self._shown:
            self._shown = number
            self._in_flight.set(number)

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        self.enter()
        if self._shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        return generate_latest(self.registry)


class _Observers(dict[tuple[str, str], Callable[[float], None]]):
    """The way to enter seconds for each route and model: to look it up costs as much as that."""

    def __init__(self, histogram: Histogram) -> None:
        super().__init__()
        self._histogram = histogram

    def __missing__(self, labels: tuple[str, str]) -> Callable[[float], None]:
        self[labels] = found = self._histogram.labels(*labels).observe
        return found
