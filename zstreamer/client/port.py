"""Where a job's chunks go: what an iterator of outputs needs of a client, or of a model here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from zstreamer.client.calls import Call, Watch
from zstreamer.client.core import ClientCore
from zstreamer.client.job import Encoded, Window
from zstreamer.client.settings import Settings, whole_priority
from zstreamer.errors import BadRequest, ZStreamerError
from zstreamer.tracing.call import here
from zstreamer.tracing.context import Under

SHARE = 0.75
"""Of a client's windows: what is left over keeps its other calls from waiting."""

UNKNOWN = Window(256)
"""How much of a job may be under way before a broker has granted anything."""

PROBE = 5.0
"""Seconds that a look at whether there is a worker may take."""

_lanes = itertools.count(2**40)
"""Of jobs; those of large calls are named by their first items."""


class Ended(Protocol):
    """What has become of a chunk."""

    def settled(self) -> list[object]:
        """Return an output or an error for each item."""

    def size(self) -> int:
        """Return the bytes of the outputs, 0 where they have none."""


class Port(Protocol):
    """Where chunks go."""

    def encode(self, items: Sequence[object], first: int) -> list[Encoded]:
        """Return items in the form in which `start` takes them; first: index of the first one."""

    def window(self) -> Window:
        """Return how much of a job may be under way."""

    def start(self, payloads: list[Any], done: Callable[[Ended], None]) -> Callable[[], None]:
        """Submit a chunk; `done` is called from any thread at its end. Returns what cancels it."""

    def probe(self, done: Callable[[ZStreamerError | None], None]) -> None:
        """Look whether there is a worker; `done` gets None, or why not."""


class Driver(Protocol):
    """What a port needs of the drivers for threads, gevent and asyncio."""

    core: ClientCore

    def start(self, call: Call | Watch, done: Callable[[Any], None]) -> None:
        """Submit a call."""

    def cancel(self, call: Call | Watch) -> None:
        """Give a call up."""


class ClientPort:
    """The brokers of a client.

    Args:
        settings: the client's.
        driver: returns the client's driver for whoever asks.
        model, timeout, priority, idempotent: of the calls, as for `Client.predict`.
    """

    def __init__(
        self,
        settings: Settings,
        driver: Callable[[], Driver],
        model: str | None,
        timeout: float,
        priority: int,
        idempotent: bool,
    ) -> None:
        self._settings = settings
        self._driver = driver
        self._model = settings.named(model)
        self._budget = settings.budget(timeout)
        self._priority = whole_priority(priority)
        self._idempotent = idempotent
        self._lane = next(_lanes)
        self._trace = here()  # a chunk may be submitted by another thread

    def encode(self, items: Sequence[object], first: int) -> list[Encoded]:
        """Return the payload of each item, or why it has none."""
        try:
            return [Encoded(each, len(each)) for each in self._settings.codec.encode_all(items, "")]
        except BadRequest:
            return [self._encode(item, first + place) for place, item in enumerate(items)]

    def _encode(self, item: object, index: int) -> Encoded:
        try:
            [payload] = self._settings.codec.encode_all([item], f"items[{index}]")
        except BadRequest as error:
            return Encoded(None, 0, error)
        return Encoded(payload, len(payload))

    def window(self) -> Window:
        """Return the larger part of what the brokers have granted."""
        items, size = self._driver().core.window()
        if not items:
            return UNKNOWN
        return Window(max(1, int(SHARE * items)), SHARE * size or math.inf)

    def start(self, payloads: list[Any], done: Callable[[Ended], None]) -> Callable[[], None]:
        """Submit a chunk as one call, in the job's own lane."""
        with Under(self._trace):
            call = self._settings.encoded(
                payloads, self._model, self._budget, self._priority, self._idempotent, True
            )
        call.lane = self._lane
        driver = self._driver()
        driver.start(call, done)
        return lambda: driver.cancel(call)

    def probe(self, done: Callable[[ZStreamerError | None], None]) -> None:
        """Watch for a warm worker for some seconds."""
        watch = self._settings.watch(self._model, PROBE)
        self._driver().start(watch, lambda watch: done(watch.error))
