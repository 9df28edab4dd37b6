"""A client as the broker knows it. It outlives its connections by a short grace."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from zstreamer.broker.lots import Lot
from zstreamer.broker.patience import WORDS_AN_ITEM
from zstreamer.broker.tenants import Tenant, Terms
from zstreamer.histogram import Sizes
from zstreamer.keys.ring import Principal
from zstreamer.wire import protocol
from zstreamer.wire.protocol import BUNDLE, INLINE, MAX_ROWS, PART, Frames, Slot
from zstreamer.wire.transfer import Receiver, Sender


class _Outcomes(NamedTuple):
    """What some items came to, in columns, and its bytes."""

    ids: list[int]
    slots: list[Slot]
    size: int

    def rows(self) -> list[tuple[int, Slot]]:
        return list(zip(self.ids, self.slots, strict=True))


class ClientRecord:
    """One client: its open items, and the answers that it may not have read yet.

    An answer is kept until the client says ACK, because a connection that breaks takes with
    it what was written but not read. `unread` is what that costs, in bytes. `told` is the same for
    all else that it was sent: that counts as read when an answer behind it is.

    Attributes:
        session: routing id of its present connection, None while it has none.
        lost_at: monotonic seconds at which the last connection was lost.
        items: for each open item the lot that it is in, by id.
        bytes: payload bytes of its open items.
        tenant: to whom its work counts; its first HELLO says it, or its key.
        principal: whose key it has; None where the broker asks for none.
        noticed: hash of why its items have to wait, as it was told last, by model.
        words: messages that it has sent lately, less what its items pay for; see `patience`.
        acked: ANSWERs of this connection that it is known to have read.
        sent: items that it has sent in all.
        peak, peak_before: most items that it had open in this tick, and in the one before.

    Args:
        id: its own, of 63 random bits.
        max_payload: bytes of one item.
        answers: counts how many outcomes each ANSWER carries.
        tenant: to whom its work counts; where None, one of its own.
    """

    def __init__(
        self,
        id: int,
        max_payload: int,
        answers: Sizes | None = None,
        tenant: Tenant | None = None,
    ) -> None:
        self.id = id
        self.tenant = Tenant("", Terms()) if tenant is None else tenant
        self.tenant.clients += 1
        self._answers = Sizes() if answers is None else answers
        self.session: bytes | None = None
        self.lost_at = 0.0
        self.items: dict[int, Lot] = {}
        self.bytes = 0
        self.unread = 0
        self.told = 0
        self.words = 0
        self.sent = self.peak = self.peak_before = 0
        self.noticed: dict[str, int] = {}
        self.info: dict[str, object] = {}
        self.principal: Principal | None = None
        self._max_payload = max_payload
        self._ids: list[int] = []
        self._slots: list[Slot] = []
        self._size = 0
        self._kept: deque[tuple[_Outcomes, int]] = deque()
        self._told_since = 0  # the last ANSWER, of `told`
        self.acked = 0
        self._plain: list[Frames] = []
        self.receiver = Receiver(max_payload)
        self.sender: Sender[tuple[int, Slot]] = Sender()

    @property
    def held(self) -> int:
        """Bytes that are kept on its account."""
        return self.unread + self.told + self.bytes + self.receiver.bytes

    def open(self, lot: Lot) -> None:
        """Take charge of items."""
        items, tenant, count = self.items, self.tenant, len(lot.ids)
        for id in lot.ids:
            items[id] = lot
        self.bytes += lot.size
        tenant.open += count
        tenant.bytes += lot.size
        self.sent += count
        self.peak = max(self.peak, len(items))

    def end(self, ids: Collection[int], size: int) -> None:
        """Forget open items, answered or not; ``size`` is that of their payloads."""
        items, tenant = self.items, self.tenant
        for id in ids:
            del items[id]
        self.bytes -= size
        tenant.open -= len(ids)
        tenant.bytes -= size

    def answer(self, ids: list[int], slots: Sequence[Slot]) -> int:
        """Send outcomes of items, now or after the client has resumed; return their bytes."""
        size = _size(slots)
        self.unread += size
        self.words -= WORDS_AN_ITEM * len(ids)
        if size > PART and any(_large(slot) for slot in slots):
            self._answer_large(ids, slots)
            return size
        self._ids += ids
        self._slots += slots
        self._size += size
        return size

    def _answer_large(self, ids: list[int], slots: Sequence[Slot]) -> None:
        for id, slot in zip(ids, slots, strict=True):
            if _large(slot):
                self.sender.start(slot, (id, slot))  # type: ignore[arg-type]  # errors are small
            else:
                self._ids.append(id)
                self._slots.append(slot)
                self._size += _size([slot])

    def tell(self, message: protocol.Message) -> None:
        """Send it a message without payload."""
        frames = protocol.plain(message)
        cost = protocol.cost(frames)
        self._told_since += cost
        self.told += cost
        self._plain.append(frames)

    def acknowledge(self, count: int) -> None:
        """The client has read ``count`` ANSWERs on this connection, and what came before them."""
        while self.acked < count and self._kept:
            self.acked += 1
            outcomes, told = self._kept.popleft()
            self.unread -= outcomes.size
            self.told -= told

    def resume(self, session: bytes, waits_for: set[int]) -> list[int]:
        """Start a new connection; return those of the ids it waits for that are known here.

        Answers it may have missed are sent again, those it no longer waits for are dropped.
        """
        self.disconnect()
        self.session = session
        rows = [row for row in self._take().rows() if row[0] in waits_for]
        self.unread = 0
        for id, slot in rows:
            self.answer([id], [slot])
        return [id for id, _ in rows] + [id for id in self.items if id in waits_for]

    def disconnect(self) -> None:
        """The connection is gone; what it carried and nobody acknowledged is kept to resend."""
        self.session = None
        self.told = self._told_since = 0
        kept = [row for outcomes, _ in self._kept for row in outcomes.rows()]
        rows = kept + self.sender.stop() + self._take().rows()
        self._ids = [id for id, _ in rows]
        self._slots = [slot for _, slot in rows]
        self._size = _size(self._slots)
        self._kept.clear()
        self.acked = 0
        self._plain.clear()
        self.noticed.clear()
        self.receiver = Receiver(self._max_payload)
        self.sender = Sender()

    def flush(self) -> list[Frames]:
        """Return the messages that are to leave now, in order."""
        if self.session is None:
            return []
        messages, self._plain = self._plain, []
        if self._ids:
            outcomes = self._take()
            if outcomes.size > BUNDLE or len(outcomes.ids) > MAX_ROWS:
                for bundle in protocol.bundles(outcomes.rows(), lambda row: _size(row[1:])):
                    messages.append(self._answer(_outcomes(bundle)))
            else:
                messages.append(self._answer(outcomes))
        if self.sender.busy:
            parts, done = self.sender.poll()
            messages.extend(parts)
            for transfer, row in done:
                messages.append(self._answer(_outcomes([row]), [transfer]))
        return messages

    def _take(self) -> _Outcomes:
        outcomes = _Outcomes(self._ids, self._slots, self._size)
        self._ids, self._slots, self._size = [], [], 0
        return outcomes

    def _answer(self, outcomes: _Outcomes, transfers: list[Slot] | None = None) -> Frames:
        self._answers.observe(len(outcomes.ids))
        self._kept.append((outcomes, self._told_since))
        self._told_since = 0
        if outcomes.size <= INLINE and not transfers:  # each of them is, and the head holds all
            return protocol.answer(outcomes.ids, outcomes.slots, [])
        slots, frames = protocol.lay_out(transfers or outcomes.slots)
        return protocol.answer(outcomes.ids, slots, frames)


def _outcomes(rows: list[tuple[int, Slot]]) -> _Outcomes:
    slots = [slot for _, slot in rows]
    return _Outcomes([id for id, _ in rows], slots, _size(slots))


_PLAIN = {bytes}


def _size(slots: Sequence[Slot]) -> int:
    if set(map(type, slots)) == _PLAIN:
        return sum(map(len, slots))  # type: ignore[arg-type]  # as was just looked
    return sum(map(protocol.size, slots))


def _large(slot: Slot) -> bool:
    return not isinstance(slot, int | list | None) and len(slot) > PART
