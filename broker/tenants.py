"""Tenants: who shares the broker with whom, and what each may ask of it. Pure.

A tenant is named by a client's key, or without keys by the client's own word (`tenant` in its
HELLO). All of a tenant's clients share its turns in the queue and its limits. A client that names
none belongs to the tenant `""`. A key of the tenant `"*"` lets its program name any, as a gateway
does for its callers; with one that names no tenant it may name none, as each name has limits and
turns of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from zstreamer.errors import Overloaded, Rate
from zstreamer.keys.ring import is_tenant

MAX_TENANTS = 1000
"""Tenants without a table of their own that are kept apart; clients of more share the last."""

BURST = 1.0
"""Seconds of its rate that a tenant may use at once after a pause."""

OTHERS = "*"
"""The tenant of those that are too many to be kept apart, and the table for those without one."""


@dataclass(frozen=True)
class Terms:
    """What one tenant may ask for.

    Attributes:
        weight: its share of the workers against those of the other tenants that wait.
        items_per_second: that are admitted on average.
        bytes_per_second: of payload, likewise.
        open_items: admitted and not yet answered.
        queue_share: of the broker's max_items and max_bytes, what it may have open.
        max_priority: a higher one counts as this.
    """

    weight: float = 1.0
    items_per_second: float = math.inf
    bytes_per_second: float = math.inf
    open_items: int | None = None
    queue_share: float = 1.0
    max_priority: int | None = None

    @property
    def limited(self) -> bool:
        """Whether it may ask for less than the broker has."""
        return self != Terms(weight=self.weight)


class TenantFull(Overloaded):
    """A tenant's limits are reached."""


class _Bucket:
    """A token bucket that may go into debt, so that a call larger than it is not refused for ever.

    rate: tokens a second.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._tokens = rate * BURST
        self._at = now

    def wait(self, now: float) -> float:
        """Return the seconds until something may be taken, 0 for now."""
        if self.rate == math.inf:
            return 0.0
        self._tokens = min(self.rate * BURST, self._tokens + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._tokens > 0 else (1e-3 - self._tokens) / self.rate

    def take(self, tokens: float) -> None:
        """Take tokens, more than there are if need be."""
        if self.rate != math.inf:
            self._tokens -= tokens


class Tenant:
    """One tenant.

    Attributes:
        name: as keys and clients call it.
        terms: what it may ask for.
        limited: whether that is less than the broker has.
        open: items of its clients that are not answered yet.
        bytes: of their payloads.
        clients: how many clients belong to it.
        admitted, refused: items that were taken of it, and those that were not.
    """

    __slots__ = (
        "_bytes",
        "_items",
        "admitted",
        "bytes",
        "clients",
        "limited",
        "name",
        "open",
        "refused",
        "terms",
    )

    def __init__(self, name: str, terms: Terms, now: float = 0.0) -> None:
        self.name = name
        self.open = 0
        self.bytes = 0
        self.clients = 0
        self.admitted = 0
        self.refused = 0
        self.agree(terms, now)

    def agree(self, terms: Terms, now: float) -> None:
        """These terms hold from now on."""
        self.terms = terms
        self.limited = terms.limited  # which takes longer to find out than all else for a run
        self._items = _Bucket(terms.items_per_second, now)
        self._bytes = _Bucket(terms.bytes_per_second, now)

    def turn(self, quantum: int) -> int:
        """Return the items of its turn, where one of weight 1 gets ``quantum``."""
        return max(1, round(quantum * self.terms.weight))

    def priority(self, asked: int) -> int:
        """Return the priority that counts."""
        most = self.terms.max_priority
        return asked if most is None else min(asked, most)

    def refusal(
        self,
        now: float,
        items: int,
        size: int,
        max_items: int,
        max_bytes: int,
        predicted: float = 0.0,
    ) -> TenantFull | None:
        """Return why so many items of ``size`` bytes are more than it may have, or None.

        Args:
            now: monotonic seconds.
            items: that come.
            size: bytes of their payloads.
            max_items: the broker's own limit.
            max_bytes: likewise.
            predicted: seconds until what is queued is answered; 0 where that is not known.
        """
        terms = self.terms
        who = f"the tenant {self.name!r}"
        waits = (self._items.wait(now), "items"), (self._bytes.wait(now), "bytes")
        if (longest := max(waits))[0]:
            wait, unit = longest
            rate = self._items.rate if unit == "items" else self._bytes.rate
            words = f"{who} may send {rate:g} {unit} a second"
            return TenantFull(words, wait, Rate(rate, unit))
        later = predicted or 1.0
        most = math.inf if terms.open_items is None else terms.open_items
        if self.open + items > min(most, terms.queue_share * max_items):
            return TenantFull(f"{who} has {self.open:,} items open, as many as it may", later)
        if self.bytes + size > terms.queue_share * max_bytes:
            return TenantFull(f"{who} has {self.bytes:,} bytes open, as many as it may", later)
        return None

    def owes(self, now: float) -> bool:
        """Whether it has used more than its rates by now, so that it has to wait."""
        return self._items.wait(now) > 0 or self._bytes.wait(now) > 0

    def admit(self, items: int, size: int) -> None:
        """So many items were taken: they count against its rates."""
        self.admitted += items
        if self.limited:
            self._items.take(items)
            self._bytes.take(size)


class Tenants:
    """All tenants of one broker.

    Args:
        terms: by name; `"*"` is for those that are not named.
    """

    def __init__(self, terms: Mapping[str, Terms] | None = None) -> None:
        self._terms: Mapping[str, Terms] = terms or {}
        self._tenants: dict[str, Tenant] = {}

    def named(self, name: str, now: float) -> Tenant:
        """Return the tenant of that name, which is made where there is none yet."""
        tenant = self._tenants.get(name)
        if tenant is None:
            if len(self._tenants) >= MAX_TENANTS:
                self._forget(now)
            if len(self._tenants) >= MAX_TENANTS and name not in self._terms:
                name = OTHERS
            tenant = self._tenants.setdefault(name, Tenant(name, self._terms_of(name), now))
        return tenant

    def agree(self, terms: Mapping[str, Terms], now: float) -> None:
        """These terms hold from now on, for the tenants that are there too."""
        self._terms = terms
        for tenant in self._tenants.values():
            if tenant.terms != (new := self._terms_of(tenant.name)):
                tenant.agree(new, now)

    def __iter__(self) -> Iterator[Tenant]:
        return iter(list(self._tenants.values()))

    def _terms_of(self, name: str) -> Terms:
        return self._terms.get(name) or self._terms.get(OTHERS) or Terms()

    def _forget(self, now: float) -> None:
        """Forget those that have no client and nothing open, and are within their rates."""
        for name, tenant in list(self._tenants.items()):
            if not (
                tenant.clients or tenant.open or tenant.name in self._terms or tenant.owes(now)
            ):
                del self._tenants[name]


def name_in(info: Mapping[str, object]) -> str | None:
    """Return the tenant that a HELLO names, empty for none; None where it is no good name."""
    name = info.get("tenant", "")
    return name if isinstance(name, str) and is_tenant(name) else None
