"""A shadow: another version runs copies of items, and its answers are compared and dropped.

A shadow is a client of the broker's own that nobody reads. Its items wait behind all others, and
while too many of them are open nothing is copied: the callers do not wait for it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.lots import Lot
from zstreamer.broker.routes import Shares
from zstreamer.wire.protocol import Slot
from zstreamer.wire.transfer import Parts

if TYPE_CHECKING:
    from zstreamer.broker.models import Model

MAX_OPEN = 1024
MAX_BYTES = 64 * 1024 * 1024
"""Copies that are open at once, and their bytes; beyond, items are not copied."""

MAX_PAIRS = 4 * MAX_OPEN
"""Items of which one of the two answers is known, or neither."""

PRIORITY = -(2**31)
"""Of the copies: behind all that callers wait for."""

COPIED = "copied"
OUTCOMES = ("same", "different", "failed", "uncompared", "skipped")
"""What is counted; see `Shadow`."""

_COPY, _SKIP = "copy", "skip"


class Shadow(ClientRecord):
    """Copies items for one version, and compares the answers.

    Args:
        version: who runs the copies.
        share: of the items, what is copied.
        max_payload: bytes of one answer.
        totals: what is counted of all shadows of this version, for the metrics.

    Attributes:
        counts: copies that were ``copied``, and of these those whose answer is the ``same``, byte
            by byte, or ``different``, those that ``failed`` although the item itself was answered,
            and those ``uncompared`` as the item has no answer; and items that were ``skipped`` as
            too many copies were open, or the version had no warm worker, or lost it.
    """

    def __init__(
        self, version: str, share: float, max_payload: int, totals: Counter[str] | None = None
    ) -> None:
        super().__init__(0, max_payload)
        self.version = version
        self.share = share
        self.counts: Counter[str] = Counter()
        self._totals = Counter() if totals is None else totals
        self._shares = Shares({_COPY: share, _SKIP: 1.0 - share})
        self._next = 0
        self._copies: dict[tuple[int, int], int] = {}
        self._pairs: dict[int, _Pair] = {}

    def copy(self, now: float, lot: Lot, model: Model | None) -> list[Lot]:
        """Return copies of some of these items, for the shadow's version.

        Args:
            now: monotonic seconds.
            lot: items that were admitted now.
            model: the version's; None where it is not there.
        """
        if lot.once:  # it may run only once
            return []
        count = dict(self._shares.deal(len(lot.ids))).get(_COPY, 0)
        full = len(self.items) + count > MAX_OPEN or self.bytes + lot.size > MAX_BYTES
        if not count or model is None or not model.warm or full:
            self._count("skipped", count)
            return []
        ids = list(range(self._next, self._next + count))
        self._next += count
        self._count(COPIED, count)
        columns = lot.budgets[:count], lot.payloads[:count]
        twin = Lot(self, model, ids, *columns, now, PRIORITY, 0, once=False, movable=False)
        self.open(twin)
        for theirs, own in zip(lot.ids, ids, strict=False):
            key = lot.client.id, theirs
            if (before := self._copies.get(key)) is not None:  # its client uses the id again
                self._leave(before)
            self._copies[key] = own
            self._pairs[own] = _Pair(key)
        while len(self._pairs) > MAX_PAIRS:  # the caller gave the item up, or it never ended
            self._leave(next(iter(self._pairs)))
        return twin.apart()

    def hear(self, client: int, ids: Sequence[int], slots: Sequence[Slot]) -> None:
        """Some of the items themselves have ended."""
        for id, slot in zip(ids, slots, strict=True):
            own = self._copies.get((client, id))
            if own is None:
                continue
            if isinstance(slot, list):  # there is nothing to compare
                self._leave(own)
            else:
                self._pairs[own].item = _digest(slot)
                self._compare(own)

    def answer(self, ids: list[int], slots: Sequence[Slot]) -> int:
        """Some of the copies have ended; nothing is sent to anybody."""
        for own, slot in zip(ids, slots, strict=True):
            if own in self._pairs:
                self._pairs[own].copy = _FAILED if isinstance(slot, list) else _digest(slot)
                self._compare(own)
        return 0

    def _compare(self, own: int) -> None:
        pair = self._pairs[own]
        if pair.item and pair.copy:
            same = "same" if pair.item == pair.copy else "different"
            self._count("failed" if pair.copy == _FAILED else same, 1)
            self._forget(own)

    def _leave(self, own: int) -> None:
        """An item has no answer that its copy's could be compared with."""
        self._count("uncompared", 1)
        self._forget(own)

    def _forget(self, own: int) -> None:
        pair = self._pairs.pop(own, None)
        if pair is not None and self._copies.get(pair.key) == own:
            del self._copies[pair.key]

    def give_up(self, client: int, ids: Iterable[int]) -> None:
        """Nobody waits for some of the items themselves any more."""
        for id in ids:
            own = self._copies.get((client, id))
            if own is not None:
                self._leave(own)

    def forget_all(self) -> None:
        """The copies that are open were cancelled."""
        self._count("skipped", len(self._pairs))
        self._pairs.clear()
        self._copies.clear()

    def _count(self, what: str, items: int) -> None:
        self.counts[what] += items
        self._totals[what] += items

    def row(self) -> dict[str, object]:
        """Return what the snapshot tells of it."""
        counts = {key: self.counts[key] for key in (COPIED, *OUTCOMES)}
        return {"version": self.version, "share": self.share, "open": len(self.items), **counts}


_FAILED = b"failed"


class _Pair:
    """What is known of an item's answer and of its copy's; empty where nothing is."""

    __slots__ = ("copy", "item", "key")

    def __init__(self, key: tuple[int, int]) -> None:
        self.key = key
        self.item = b""
        self.copy = b""


def _digest(slot: Slot) -> bytes:
    payload = slot.join() if isinstance(slot, Parts) else slot
    return hashlib.blake2b(payload, digest_size=16).digest()  # type: ignore[arg-type]  # a payload
