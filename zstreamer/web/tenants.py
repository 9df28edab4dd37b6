"""A client for each tenant for which a gateway asks; a tenant is a client's, not an item's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

MOST = 64
"""Tenants with a client of their own; requests of more share that of `OTHERS`, since whoever sends
the header could else open any number of connections."""

OTHERS = "*"

C = TypeVar("C")


class ByTenant(Generic[C]):
    """Clients by tenant.

    Args:
        first: the client of those who name none.
        make: makes the client of a tenant.
    """

    def __init__(self, first: C, make: Callable[[str], C]) -> None:
        self._make = make
        self._clients = {"": first}

    def of(self, tenant: str) -> C:
        """Return the client of a tenant; it is made at the first request."""
        client = self._clients.get(tenant)
        if client is None:
            if len(self._clients) >= MOST:
                tenant = OTHERS
            client = self._clients.get(tenant) or self._make(tenant)
            self._clients[tenant] = client
        return client

    def all(self) -> list[C]:
        """Return all of them, to be closed."""
        return list(self._clients.values())
