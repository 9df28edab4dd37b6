"""A client for each tenant for which a gateway asks; a tenant is a client's, not an item's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

MOST = 64
"""Tenants with a client of their own; requests of more share that of `OTHERS`, since whoever sends
the header could else open any number of connections."""

IDLE = 10.0
"""Seconds without a request after which a tenant's place may go to another one."""

OTHERS = "*"


class Held(Protocol):
    """What a place holds."""

    @property
    def open_calls(self) -> int:
        """How many calls have not ended."""


C = TypeVar("C", bound=Held)


class _Place(Generic[C]):
    __slots__ = ("client", "used")

    def __init__(self, client: C, used: float) -> None:
        self.client = client
        self.used = used


class ByTenant(Generic[C]):
    """Clients by tenant. Without locks, so that it can be used by threads and across forks.

    Args:
        first: the client of those who name none.
        make: makes the client of a tenant.
        let_go: closes a client whose place goes to another tenant.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        first: C,
        make: Callable[[str], C],
        let_go: Callable[[C], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = first
        self._make = make
        self._let_go = let_go
        self._clock = clock
        self._places: dict[str, _Place[C]] = {}

    def of(self, tenant: str) -> C:
        """Return the client of a tenant; it is made at the first request."""
        if not tenant:
            return self._first
        while True:
            now = self._clock()
            place = self._places.get(tenant)
            if place is None:
                name = tenant if self._room(now) else OTHERS
                place = self._places.get(name)
                if place is None:
                    place = self._places.setdefault(name, _Place(self._make(name), now))
                place.used = now
                return place.client
            place.used = now
            if self._places.get(tenant) is place:  # else it was taken away meanwhile
                return place.client

    def all(self) -> list[C]:
        """Return all of them, to be closed."""
        return [self._first, *(each.client for each in list(self._places.values()))]

    def _room(self, now: float) -> bool:
        """Whether there is a place for one more; the one that was unused longest makes room."""
        if len(self._places) < MOST:
            return True
        for name, place in sorted(self._places.items(), key=lambda each: each[1].used):
            used = place.used
            if now - used < IDLE:
                return False
            if place.client.open_calls or self._places.pop(name, None) is not place:
                continue
            if place.used == used:
                self._let_go(place.client)
                return True
            self._places.setdefault(name, place)  # another thread has begun to use it
        return False
