"""What all connections of one process share: bounds, clock, date and the bytes they hold. Pure.

A driver calls `look` every `LOOK` seconds, which ends what is overdue. So deadlines cost a request
nothing, and may end that much late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from zstreamer.config import GatewayConfig
from zstreamer.setting import settings
from zstreamer.web.http import response_head

LOOK = 0.25
"""Seconds from one look at all connections to the next."""

BODIES = 16
"""As many of the largest bodies may be in memory at once, of all connections together."""

CROWDED = 1.0
"""Seconds for which a connection may be idle while all that there may be are open."""

_DEFAULTS: dict[str, Any] = {each.name: each.default for each in settings(GatewayConfig)}


@dataclass(frozen=True)
class Bounds:
    """What clients may take of a server.

    Args:
        max_body: bytes; a larger body is answered with 413.
        keep_alive: seconds for which a connection may be idle.
        read_timeout: seconds in which a request must come, and a second more for each 64 KiB of
            its body; then it is answered with 408.
        write_timeout: seconds in which a client must take some of its answer.

    Raises:
        ValueError: one is not positive.
    """

    max_body: int = _DEFAULTS["max_body"]
    keep_alive: float = _DEFAULTS["keep_alive"]
    read_timeout: float = _DEFAULTS["read_timeout"]
    write_timeout: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not value > 0:
                raise ValueError(f"{name} must be positive, not {value!r}")


class Served(Protocol):
    """A driver's connection, as `look` sees it."""

    @property
    def deadline(self) -> float:
        """When `overdue` is to be called, by the shared clock."""

    def overdue(self) -> None:
        """Its deadline has passed."""

    def drain(self) -> None:
        """Close it if no request is open on it."""


class Shared:
    """The state of one server that its connections read and write.

    Attributes:
        bounds: what clients may take.
        now: seconds, as of the last look; the clock stands still while the program does.
        date: the Date header as of the last look.
        held: bytes of bodies in memory; beyond `most_held` further ones are refused.
        closes: no connection is kept for a further request.
        draining: idle connections are closed.
        connections: those that are open.
    """

    def __init__(self, bounds: Bounds, now: float, wall: float) -> None:
        self.bounds = bounds
        self.now = 0.0
        self.date = response_head.date(wall)
        self.held = 0
        self.most_held = BODIES * bounds.max_body
        self.closes = False
        self.draining = False
        self.connections: set[Served] = set()
        self._looked = now

    def look(self, now: float, wall: float, crowded: bool = False) -> None:
        """End what is overdue.

        Args:
            now: seconds of a monotonic clock.
            wall: seconds of `time.time`.
            crowded: no further connection can be taken: one that is idle makes room.
        """
        # A program that stood still has not let its clients be quick either.
        self.now += min(now - self._looked, 2 * LOOK)
        self._looked = now
        self.date = response_head.date(wall)
        # A deadline was set by a clock that may have been a look late.
        overdue = self.now - LOOK
        idle = self.now + self.bounds.keep_alive - CROWDED if crowded else -math.inf
        for each in list(self.connections):
            if each.deadline < overdue:
                each.overdue()
            elif self.draining or each.deadline < idle:
                each.drain()

    def drain(self) -> None:
        """Close connections as soon as they have no request open."""
        self.closes = self.draining = True
        for each in list(self.connections):
            each.drain()
