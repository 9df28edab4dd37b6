"""A worker's relation to one broker, over one connection after another."""

from __future__ import annotations

import math

from zstreamer.wire import protocol
from zstreamer.wire.link import Link
from zstreamer.wire.protocol import PART, Frames, Report, Slot

BEGUN_HOLD = 0.002
"""Seconds that the news of a batch's begin waits for company: the answers of the batch before
come right after it, or its own soon, and each message costs the broker as much as many items."""


class WorkerLink(Link[int]):
    """One broker as the agent sees it.

    Attributes:
        jobs: how many items it holds from this broker.
        drained: the broker has confirmed that it sends nothing more.
        begun_due: monotonic seconds at which `flush` says what has begun at the latest.
        beat_at: monotonic seconds at which a long silence is to be broken.
        anew: the connection was closed to greet the broker anew, and it has not failed since.
    """

    def __init__(self, address: str, now: float, max_payload: int) -> None:
        super().__init__(address, now, max_payload)
        self.anew = False
        self.beat_at = now

    def _fresh(self) -> None:
        super()._fresh()
        self.jobs = 0
        self.drained = False
        self._begun: list[int] = []
        self.begun_due = math.inf
        self._done: list[tuple[int, Slot]] = []
        self._told_others = 0

    @property
    def flush_at(self) -> float:
        """When a beat is due, or the news of what has begun."""
        return min(self.beat_at, self.begun_due)

    def begun(self, now: float, ticket: int) -> None:
        """Say that an item has begun, with the next answers or soon."""
        if not self._begun:
            self.begun_due = now + BEGUN_HOLD
        self._begun.append(ticket)

    def done(self, ticket: int, outcome: Slot) -> None:
        """Say what became of an item."""
        self.jobs -= 1
        if isinstance(outcome, bytes) and len(outcome) > PART:
            self.sender.start(outcome, ticket)
        else:
            self._done.append((ticket, outcome))

    def beat(self, others: int, beta: int, alpha: int) -> None:
        """Break a long silence; the arguments are REPORT's last fields."""
        if others == self._told_others:
            self.tell(protocol.Ping())
            return
        # What other brokers' items have become is no reason for a REPORT of its own, but a
        # broker that never heard of their end would count them for ever.
        self._told_others = others
        self._plain.append(protocol.report(Report([], [], [], others, beta, alpha), []))

    @property
    def reported(self) -> bool:
        """Whether nothing waits to be sent."""
        return not (self._begun or self._done or self._plain or len(self.sender))

    def flush(self, now: float, others: int, beta: int, alpha: int) -> list[Frames]:
        """Return the messages that are to leave now; the last arguments are REPORT's fields."""
        messages, done = self._flush()
        rows: list[tuple[int, Slot]] = self._done
        self._done = []
        rows += [(ticket, transfer) for transfer, ticket in done]
        begun: list[int] = []
        if rows or now >= self.begun_due:
            begun, self._begun = self._begun, []
            self.begun_due = math.inf
            while len(begun) > protocol.MAX_ROWS:
                first, begun = begun[: protocol.MAX_ROWS], begun[protocol.MAX_ROWS :]
                messages.append(protocol.report(Report(first, [], [], others, beta, alpha), []))
        for bundle in protocol.bundles(rows, lambda row: protocol.size(row[1])):
            slots, frames = protocol.lay_out([slot for _, slot in bundle])
            tickets = [ticket for ticket, _ in bundle]
            messages.append(
                protocol.report(Report(begun, tickets, slots, others, beta, alpha), frames)
            )
            begun = []
            self._told_others = others
        if begun:
            messages.append(protocol.report(Report(begun, [], [], others, beta, alpha), []))
            self._told_others = others
        return messages
