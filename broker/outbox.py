"""What is to be sent to one worker: its items as WORK, and the rest in order."""

from __future__ import annotations

from collections.abc import Mapping

from zstreamer.broker import traces
from zstreamer.broker.lots import Lot
from zstreamer.broker.tally import Bundles
from zstreamer.system.logs import event
from zstreamer.wire import protocol
from zstreamer.wire.protocol import BUNDLE, MAX_ROWS, Flag, Frames, Slot, Traced
from zstreamer.wire.tags import line, tag
from zstreamer.wire.transfer import Sender, cut

ONCE, MORE, GO = int(Flag.ONCE), int(Flag.MORE), int(Flag.GO)  # an enum's | costs a microsecond


class Outbox:
    """Packs lots into messages, once a turn.

    Args:
        worker: its id, for the log.
        tickets: for each item that the worker holds the lot that it went out in.
        bundles: counts how many items each WORK carries.

    Attributes:
        plain: messages without items; they leave first.
        lots, once: that are to leave; in `once` those that may run only once.
        alone: groups of lots, each of which is to run as one batch of its own.
        cancels: tickets whose item is no longer wanted.
        sender: of large payloads.
        word: MORE or GO, to be said with the items that leave next; 0 for neither.
        traces: the worker takes the contexts of traces.
        gathers: the worker waits for more items before it begins.
    """

    def __init__(self, worker: int, tickets: Mapping[int, Lot], bundles: Bundles) -> None:
        self.plain: list[Frames] = []
        self.lots: list[Lot] = []
        self.once: list[Lot] = []
        self.alone: list[list[Lot]] = []
        self.cancels: list[int] = []
        self.sender: Sender[Lot] = Sender()
        self.traces = self.gathers = False
        self.word = 0
        self._worker = worker
        self._tickets = tickets
        self._bundles = bundles

    def flush(self, now: float) -> list[Frames]:
        """Return the messages that are to leave now, in order."""
        messages, self.plain = self.plain, []
        if self.lots or self.once or self.word:
            messages += self._new_work(now)
        if self.alone:
            groups, self.alone = self.alone, []
            for group in groups:
                # A group must arrive as one message, so its large payloads go ahead of it,
                # all at once: suspects are few and rare.
                messages += self._parts_first(now, group)
        if self.sender.busy:
            parts, done = self.sender.poll()
            messages += parts
            messages += [self._large(now, *each) for each in done if each[1].wanted()]
            messages += self._word_after_parts()
        if self.cancels:
            tickets, self.cancels = self.cancels, []
            messages.extend(protocol.cancels(tickets))
        return messages

    def _new_work(self, now: float) -> list[Frames]:
        """Return what the worker has been assigned, with the word on whether more is coming."""
        lots, self.lots = self.lots, []
        once, self.once = self.once, []
        word = self.word
        apart = word == GO and self.sender.busy  # then it follows the last of what goes in parts
        if not apart:
            self.word = 0
        last = word == GO and not apart and not _is_one_message(lots, once)
        flags = MORE if last or apart else word
        messages = self._work_for(now, lots, flags) if lots else []
        if once:
            messages += self._work_for(now, once, flags | ONCE)
        if last:  # the batch is whole only with all that has been sent
            messages.append(protocol.work(GO, [], [], [], []))
        return messages

    def _word_after_parts(self) -> list[Frames]:
        if self.word != GO or self.sender.busy:
            return []
        self.word = 0
        return [protocol.work(GO, [], [], [], [])]

    def _work_for(self, now: float, lots: list[Lot], flags: int) -> list[Frames]:
        if len(lots) == 1:
            lot = lots[0]
            tickets = list(range(lot.ticket, lot.ticket + len(lot.ids)))
            budgets, payloads, size = lot.left(now), lot.payloads, lot.size
        else:
            tickets, budgets = _columns(now, lots)
            payloads = [payload for lot in lots for payload in lot.payloads]
            size = sum([lot.size for lot in lots])
        traced = traces.of(now, lots) if self.traces else []
        self._bundles.work.observe(len(tickets))
        if protocol.fits_inline(size, len(tickets)):  # the head holds all
            return [self._work(flags, tickets, budgets, payloads, [], traced)]  # type: ignore[arg-type]  # list is invariant
        if size <= BUNDLE and len(tickets) <= MAX_ROWS:
            slots, frames = protocol.lay_out(payloads)  # type: ignore[arg-type]  # list is invariant
            return [self._work(flags, tickets, budgets, slots, frames, traced)]
        messages = []
        rows = list(zip(tickets, budgets, payloads, strict=True))
        for bundle in protocol.bundles(rows, lambda row: len(row[2])):
            slots, frames = protocol.lay_out([payload for _, _, payload in bundle])
            columns = [ticket for ticket, _, _ in bundle], [budget for _, budget, _ in bundle]
            here = traces.among(traced, columns[0]) if traced else traced
            messages.append(self._work(flags, *columns, slots, frames, here))
        return messages

    def _large(self, now: float, transfer: int, lot: Lot) -> Frames:
        """Return the WORK of an item whose payload has gone ahead as a transfer."""
        traced = traces.of(now, [lot]) if self.traces else []
        flags = (ONCE if lot.once else 0) | (MORE if self.gathers or self.word else 0)
        return self._work(flags, [lot.ticket], lot.left(now), [transfer], [], traced)

    def _work(
        self,
        flags: int,
        tickets: list[int],
        budgets: list[int],
        slots: list[Slot],
        frames: Frames,
        traced: list[Traced],
    ) -> Frames:
        followed = self._bundles.followed
        if followed is None:
            return protocol.work(flags, tickets, budgets, slots, frames, None, traced)
        lots = [self._tickets[ticket] for ticket in tickets]
        tagged = [
            tag(lot.client.id, lot.ids[ticket - lot.ticket])
            for lot, ticket in zip(lots, tickets, strict=True)
        ]
        worker = f"{self._worker:016x}"
        followed.append(
            event("items leave", worker=worker, items=line(tagged), first_ticket=tickets[0])
        )
        return protocol.work(flags, tickets, budgets, slots, frames, tagged, traced)

    def _parts_first(self, now: float, group: list[Lot]) -> list[Frames]:
        messages: list[Frames] = []
        payloads: list[Slot] = []
        for lot in group:
            if lot.large:
                transfer = self.sender.reserve()
                messages.extend(protocol.part(transfer, frame) for frame in cut(lot.payloads[0]))
                payloads.append(transfer)
            else:
                payloads.extend(lot.payloads)
        flags = Flag.ALONE | (Flag.ONCE if group[0].once else 0)
        small = sum(lot.size for lot in group if not lot.large) <= BUNDLE
        slots, frames = protocol.lay_out(payloads) if small else protocol.all_apart(payloads)
        traced = traces.of(now, group) if self.traces else []
        return [*messages, self._work(flags, *_columns(now, group), slots, frames, traced)]


def _is_one_message(lots: list[Lot], once: list[Lot]) -> bool:
    if bool(lots) is bool(once):  # nothing, or both of what may run only once and what may again
        return False
    rows = sum(len(lot.ids) for lot in lots or once)
    return rows <= MAX_ROWS and sum(lot.size for lot in lots or once) <= BUNDLE


def _columns(now: float, lots: list[Lot]) -> tuple[list[int], list[int]]:
    """Return the tickets and the budgets, in milliseconds, of these lots' items."""
    tickets: list[int] = []
    budgets: list[int] = []
    for lot in lots:
        tickets.extend(range(lot.ticket, lot.ticket + len(lot.ids)))
        budgets += lot.left(now)
    return tickets, budgets
