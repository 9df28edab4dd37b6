"""A worker as the broker knows it, for as long as its connection lasts."""

from __future__ import annotations

import math

from broker.items import Item, ItemState
from broker.models import Model
from zstreamer import protocol
from zstreamer.config import BrokerConfig
from zstreamer.protocol import PART, Flag, Frames, Slot, WorkerState
from zstreamer.transfer import Receiver, Sender, cut

STALL = 3.0
"""Seconds of silence after which a worker gets nothing new; it says something every second."""


class Worker:
    """One worker's connection: its window, its tickets and what is to be sent to it.

    Attributes:
        tickets: items assigned to it, whether begun or not, whether still wanted or not.
        begun: how many of them its model has begun.
        others: items that it holds from other brokers.
    """

    def __init__(
        self,
        session: bytes,
        id: int,
        model: Model,
        batch_size: int,
        pool: int,
        config: BrokerConfig,
        info: dict[str, object],
        now: float,
    ) -> None:
        self.session = session
        self.id = id
        self.model = model
        self.batch_size = batch_size
        # One batch runs while the next gathers; with less the batches average half.
        self.window_items = 2 * batch_size + pool
        self.window_bytes = config.window_bytes
        self.info = info
        self.state = WorkerState.BOOTING
        self.stalled = False
        self.heard = now
        self.tickets: dict[int, Item] = {}
        self.bytes = 0
        self.begun = 0
        self.others = 0
        self.beta = 0.0
        self.alpha = 0.0
        self.free_at = 0.0
        self.used = 0
        self.served = 0
        self.receiver = Receiver(config.max_payload)
        self.sender: Sender[tuple[int, Item]] = Sender()
        self._out: list[tuple[int, Item]] = []
        self._alone: list[list[tuple[int, Item]]] = []
        self._cancels: list[int] = []
        self._plain: list[Frames] = []

    @property
    def open(self) -> bool:
        """Whether it may be given items now."""
        return (
            self.state is WorkerState.WARM
            and not self.stalled
            and len(self.tickets) < self.window_items
            and (self.bytes < self.window_bytes or not self.tickets)
        )

    @property
    def waiting(self) -> int:
        """Items that it holds and has not begun, from all brokers."""
        return len(self.tickets) - self.begun + self.others

    @property
    def room(self) -> int:
        """Items that its window still admits."""
        return self.window_items - len(self.tickets)

    def batch_time(self, items: int) -> float:
        """Return the seconds that a batch of this many items is expected to take."""
        return self.beta + self.alpha * items

    def assign(self, ticket: int, item: Item) -> None:
        """Give it an item under a new ticket."""
        self._register(ticket, item)
        if item.size > PART:
            self.sender.start(item.payload, (ticket, item))
        else:
            self._out.append((ticket, item))

    def assign_alone(self, tickets: list[int], items: list[Item]) -> None:
        """Give it items that are to run as one batch of their own."""
        rows = list(zip(tickets, items, strict=True))
        for ticket, item in rows:
            self._register(ticket, item)
        self._alone.append(rows)

    def _register(self, ticket: int, item: Item) -> None:
        item.state = ItemState.ASSIGNED
        item.worker = self
        item.ticket = ticket
        self.tickets[ticket] = item
        self.bytes += item.size

    def release(self, ticket: int) -> Item | None:
        """Take a ticket back and give the window its room; None if it is none of this worker's."""
        item = self.tickets.pop(ticket, None)
        if item is None:
            return None
        self.bytes -= item.size
        if item.state is ItemState.BEGUN:
            self.begun -= 1
        return item

    def start(self, now: float, tickets: list[int]) -> None:
        """Its model has begun these."""
        begun = 0
        for ticket in tickets:
            item = self.tickets.get(ticket)
            if item is not None and item.state is ItemState.ASSIGNED:
                item.state = ItemState.BEGUN
                begun += 1
        if begun:
            self.begun += begun
            self.free_at = now + self.batch_time(begun)

    def cancel(self, item: Item) -> None:
        """An item is no longer wanted: take its ticket back if WORK has not left, else say so."""
        if item.size > PART and self.sender.give_up((item.ticket, item)):
            self.release(item.ticket)
        else:
            self._cancels.append(item.ticket)

    def tell(self, message: protocol.Message) -> None:
        """Send it a message without items."""
        self._plain.append(protocol.plain(message))

    def flush(self, now: float) -> list[Frames]:
        """Return the messages that are to leave now, in order."""
        messages, self._plain = self._plain, []
        rows, self._out = self._out, []
        messages.extend(self._bundles(now, rows))
        groups, self._alone = self._alone, []
        for group in groups:
            # A group must arrive as one message, so its large payloads go ahead of it,
            # all at once: suspects are few and rare.
            messages.extend(self._parts_first(now, group))
        parts, done = self.sender.poll()
        messages.extend(parts)
        for transfer, (ticket, item) in done:
            if item.state is not ItemState.ENDED:
                messages.extend(self._bundle(now, [(ticket, item)], [transfer], 0))
        if self._cancels:
            tickets, self._cancels = self._cancels, []
            messages.append(protocol.plain(protocol.Cancel(tickets)))
        return messages

    def _parts_first(self, now: float, group: list[tuple[int, Item]]) -> list[Frames]:
        messages: list[Frames] = []
        slots: list[Slot] = []
        for _, item in group:
            if item.size > PART:
                transfer = self.sender.reserve()
                messages.extend(protocol.part(transfer, frame) for frame in cut(item.payload))
                slots.append(transfer)
            else:
                slots.append(item.payload)
        return messages + self._bundle(now, group, slots, Flag.ALONE)

    def _bundles(self, now: float, rows: list[tuple[int, Item]]) -> list[Frames]:
        once = [row for row in rows if row[1].once]
        if once:
            rows = [row for row in rows if not row[1].once]
        messages: list[Frames] = []
        for share in (rows, once):
            for bundle in protocol.bundles(share, lambda row: row[1].size):
                payloads: list[Slot] = [item.payload for _, item in bundle]
                messages.extend(self._bundle(now, bundle, payloads, 0))
        return messages

    def _bundle(
        self, now: float, rows: list[tuple[int, Item]], payloads: list[Slot], flags: int
    ) -> list[Frames]:
        if rows[0][1].once:
            flags |= Flag.ONCE
        tickets = [ticket for ticket, _ in rows]
        budgets = [max(0, math.ceil((item.deadline - now) * 1000)) for _, item in rows]
        slots, frames = protocol.lay_out(payloads)
        return [protocol.work(flags, tickets, budgets, slots, frames)]
