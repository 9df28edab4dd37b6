"""Items as the broker knows them: in lots, so that what can be done for many is done once.

A lot is what one SUBMIT brought under one heading, or the part of it that went to one worker.
Its items share everything but id, budget and payload. Where one item is:

    open          client.items[id] is its lot; until it is answered, failed or given up
    queued        lot.worker is None
    at a worker   worker.tickets[lot.ticket + position] is its lot, as long as the worker holds it
    begun         that ticket is in worker.running

The states are the broker's column in docs/protocol.md. Items that part company (one returns,
one is to blame) go on in lots of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from zstreamer.wire.protocol import PART

if TYPE_CHECKING:
    from zstreamer.broker.clients import ClientRecord
    from zstreamer.broker.family import Family
    from zstreamer.broker.models import Model
    from zstreamer.broker.traces import Context
    from zstreamer.broker.workers import Worker
    from zstreamer.wire.protocol import Buffer, Slot


class Lot:
    """Items of one client that are at one place.

    Attributes:
        ids: the client's numbers for them; with the client's id they are the tags.
        budgets: milliseconds that each had left when they arrived.
        payloads: of each; one of more than a part is alone in its lot.
        size: bytes of all payloads.
        arrived: monotonic seconds.
        once: they must never be run twice.
        movable: their client has other brokers, and gets them back where no worker is ready.
        worker: who holds them; None while they are queued.
        ticket: number of the first one's ticket there; the others follow.
        deaths: how often a model's process died while running it with no other item.
        losses: how often a worker that had begun them was lost from sight.
        suspect: it was in a batch whose process died, and runs apart until it is cleared; such
            an item is alone in its lot.
        family: the versions of which any may have them; None where one was asked for by name.
        traces: the contexts of those that are traced, by id, and of others it was cut from; None
            for nearly all lots.
    """

    __slots__ = (
        "arrived",
        "budgets",
        "client",
        "deaths",
        "family",
        "ids",
        "lane",
        "losses",
        "model",
        "movable",
        "once",
        "payloads",
        "priority",
        "size",
        "suspect",
        "ticket",
        "traces",
        "worker",
    )

    def __init__(
        self,
        client: ClientRecord,
        model: Model,
        ids: list[int],
        budgets: list[int],
        payloads: list[Buffer],
        arrived: float,
        priority: int,
        lane: int,
        *,
        once: bool,
        movable: bool,
    ) -> None:
        self.client = client
        self.model = model
        self.ids = ids
        self.budgets = budgets
        self.payloads = payloads
        self.size = sum(map(len, payloads))
        self.arrived = arrived
        self.priority = priority
        self.lane = lane
        self.once = once
        self.movable = movable
        self.worker: Worker | None = None
        self.ticket = 0
        self.deaths = 0
        self.losses = 0
        self.suspect = False
        self.family: Family | None = None
        self.traces: dict[int, Context] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def asked(self) -> Model:
        """The model that the client asked for; `model` may be a version of it."""
        return self.model if self.family is None else self.family.front

    @property
    def large(self) -> bool:
        """Whether its payload travels in parts."""
        return self.size > PART and len(self.payloads[0]) > PART

    def left(self, now: float) -> list[int]:
        """Return the milliseconds that each has left, 0 where nothing is."""
        elapsed = int((now - self.arrived) * 1000)
        if not elapsed:
            return self.budgets
        left = [budget - elapsed for budget in self.budgets]
        return left if min(left) >= 0 else [max(0, each) for each in left]

    def late(self, now: float) -> list[int]:
        """Return the positions of those whose budget has ended."""
        elapsed = (now - self.arrived) * 1000
        if min(self.budgets) > elapsed:
            return []
        return [i for i, budget in enumerate(self.budgets) if budget <= elapsed]

    def wanted(self) -> list[int]:
        """Return the positions of those that somebody still waits for."""
        items = self.client.items
        return [i for i, id in enumerate(self.ids) if items.get(id) is self]

    def size_of(self, ids: Collection[int]) -> int:
        """Return the bytes of these items' payloads."""
        if len(ids) == len(self.ids):
            return self.size
        some = set(ids)
        return sum(len(p) for id, p in zip(self.ids, self.payloads, strict=True) if id in some)

    def take(self, count: int) -> Lot:
        """Cut the first ``count`` items off as a lot of their own."""
        first = self._like(self.ids[:count], self.budgets[:count], self.payloads[:count])
        del self.ids[:count], self.budgets[:count], self.payloads[:count]
        self.size -= first.size
        return first

    def pick(self, positions: Sequence[int]) -> Lot:
        """Return these open items as a queued lot of their own; this one no longer owns them."""
        return self._like(
            [self.ids[i] for i in positions],
            [self.budgets[i] for i in positions],
            [self.payloads[i] for i in positions],
        )

    def apart(self) -> list[Lot]:
        """Return itself, in single items where any of them is large."""
        if self.size > PART and any(len(payload) > PART for payload in self.payloads):
            return self.singles()
        return [self] if self.ids else []

    def singles(self) -> list[Lot]:
        """Return its items, each as a queued lot of its own."""
        return [self.pick([i]) for i in range(len(self.ids))]

    def drop(self, ids: set[int]) -> int:
        """Forget these items of a queued lot; return their bytes."""
        keep = [i for i, id in enumerate(self.ids) if id not in ids]
        before = self.size
        self.ids = [self.ids[i] for i in keep]
        self.budgets = [self.budgets[i] for i in keep]
        self.payloads = [self.payloads[i] for i in keep]
        self.size = sum(map(len, self.payloads))
        return before - self.size

    def _like(self, ids: list[int], budgets: list[int], payloads: list[Buffer]) -> Lot:
        lot = Lot(
            self.client,
            self.model,
            ids,
            budgets,
            payloads,
            self.arrived,
            self.priority,
            self.lane,
            once=self.once,
            movable=self.movable,
        )
        lot.deaths, lot.losses, lot.suspect = self.deaths, self.losses, self.suspect
        lot.family = self.family
        lot.traces = self.traces
        self.client.items.update(dict.fromkeys(ids, lot))
        return lot


def by_lot(
    lots: list[Lot | None], tickets: list[int], slots: list[Slot]
) -> Iterable[tuple[Lot | None, list[int], list[Slot]]]:
    """Cut columns into runs of one lot each; ``lots`` says of each ticket whose it is."""
    if not lots:
        return ()
    if lots.count(lots[0]) == len(lots):
        return ((lots[0], tickets, slots),)
    return _cut(lots, tickets, slots)


def _cut(
    lots: list[Lot | None], tickets: list[int], slots: list[Slot]
) -> Iterator[tuple[Lot | None, list[int], list[Slot]]]:
    start = 0
    for lot, same in groupby(lots):
        end = start + len(list(same))
        yield lot, tickets[start:end], slots[start:end]
        start = end
