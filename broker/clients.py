"""A client as the broker knows it. It outlives its connections by a short grace."""

from __future__ import annotations

from collections import deque

from broker.items import Item, ItemState
from zstreamer import protocol
from zstreamer.protocol import PART, Frames, Slot
from zstreamer.transfer import Receiver, Sender

_ERROR_SIZE = 256  # bytes that an error is counted as


class Client:
    """One client: its open items, and the answers that it may not have read yet.

    An answer is kept until the client says ACK, because a connection that breaks takes with
    it what was written but not read. `unread` is what that costs, in bytes.

    Attributes:
        session: routing id of its present connection, None while it has none.
        lost_at: monotonic seconds at which the last connection was lost.
        items: its open items, by id.
        bytes: payload bytes of its open items.
    """

    def __init__(self, id: int, max_payload: int) -> None:
        self.id = id
        self.session: bytes | None = None
        self.lost_at = 0.0
        self.items: dict[int, Item] = {}
        self.bytes = 0
        self.unread = 0
        self.noticed: set[str] = set()
        self.info: dict[str, object] = {}
        self._max_payload = max_payload
        self._out: list[tuple[int, Slot]] = []
        self._kept: deque[tuple[list[tuple[int, Slot]], int]] = deque()
        self._acked = 0
        self._plain: list[Frames] = []
        self.receiver = Receiver(max_payload)
        self.sender: Sender[tuple[int, Slot]] = Sender()

    def open(self, item: Item) -> None:
        """Take charge of an item."""
        self.items[item.id] = item
        self.bytes += item.size

    def end(self, item: Item) -> None:
        """Forget an item, answered or not."""
        if self.items.pop(item.id, None) is not None:
            self.bytes -= item.size
        item.state = ItemState.ENDED

    def answer(self, id: int, outcome: Slot) -> None:
        """Send the outcome of an item, now or after the client has resumed."""
        size = _size(outcome)
        self.unread += size
        if size > PART:
            self.sender.start(outcome, (id, outcome))  # type: ignore[arg-type]  # errors are small
        else:
            self._out.append((id, outcome))

    def tell(self, message: protocol.Message) -> None:
        """Send it a message without payload."""
        self._plain.append(protocol.plain(message))

    def acknowledge(self, count: int) -> None:
        """The client has read ``count`` ANSWERs on this connection."""
        while self._acked < count and self._kept:
            self._acked += 1
            self.unread -= self._kept.popleft()[1]

    def resume(self, session: bytes, waits_for: set[int]) -> list[int]:
        """Start a new connection; return those of the ids it waits for that are known here.

        Answers it may have missed are sent again, those it no longer waits for are dropped.
        """
        self.disconnect()
        self.session = session
        self._out = [row for row in self._out if row[0] in waits_for]
        self.unread = sum(_size(outcome) for _, outcome in self._out)
        answered = [id for id, _ in self._out]
        rows, self._out = self._out, []
        for id, outcome in rows:
            self.unread -= _size(outcome)
            self.answer(id, outcome)
        return answered + [id for id in self.items if id in waits_for]

    def disconnect(self) -> None:
        """The connection is gone; what it carried and nobody acknowledged is kept to resend."""
        self.session = None
        unread = [row for rows, _ in self._kept for row in rows]
        self._out = unread + self.sender.stop() + self._out
        self._kept.clear()
        self._acked = 0
        self._plain.clear()
        self.noticed.clear()
        self.receiver = Receiver(self._max_payload)
        self.sender = Sender()

    def flush(self) -> list[Frames]:
        """Return the messages that are to leave now, in order."""
        if self.session is None:
            return []
        messages, self._plain = self._plain, []
        rows, self._out = self._out, []
        for bundle in protocol.bundles(rows, lambda row: _size(row[1])):
            messages.append(self._answer(bundle, [outcome for _, outcome in bundle]))
        parts, done = self.sender.poll()
        messages.extend(parts)
        for transfer, row in done:
            messages.append(self._answer([row], [transfer]))
        return messages

    def _answer(self, rows: list[tuple[int, Slot]], payloads: list[Slot]) -> Frames:
        self._kept.append((rows, sum(_size(outcome) for _, outcome in rows)))
        slots, frames = protocol.lay_out(payloads)
        return protocol.answer([id for id, _ in rows], slots, frames)


def _size(outcome: Slot) -> int:
    if outcome is None or type(outcome) is int or type(outcome) is list:
        return _ERROR_SIZE
    return len(outcome)  # type: ignore[arg-type]  # a buffer, after the above
