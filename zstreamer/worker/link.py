"""A worker's relation to one broker, over one connection after another."""

from __future__ import annotations

import math
from enum import Enum

from zstreamer.wire import protocol
from zstreamer.wire.protocol import PART, Frames, Report, Slot
from zstreamer.wire.transfer import Receiver, Sender

BEGUN_HOLD = 0.002
"""Seconds that the news of a batch's begin waits for company: the answers of the batch before
come right after it, or its own soon, and each message costs the broker as much as many items."""


class LinkState(Enum):
    """Where the relation stands."""

    DOWN = "down"
    CONNECTING = "connecting"
    GREETING = "greeting"
    READY = "ready"


class WorkerLink:
    """One broker as the agent sees it.

    Attributes:
        jobs: how many items it holds from this broker.
        drained: the broker has confirmed that it sends nothing more.
        begun_due: monotonic seconds at which `flush` says what has begun at the latest.
        refused: why the broker would not take this worker.
        anew: the connection was closed to greet the broker anew, and it has not failed since.
    """

    def __init__(self, address: str, now: float, max_payload: int) -> None:
        self.address = address
        self.state = LinkState.DOWN
        self.since = now
        self.retry_at = now
        self.attempts = 0
        self.jobs = 0
        self.drained = False
        self.refused = ""
        self.anew = False
        self.beat_at = now
        self._max_payload = max_payload
        self._fresh()

    def _fresh(self) -> None:
        self.receiver = Receiver(self._max_payload)
        self.sender: Sender[int] = Sender()
        self._begun: list[int] = []
        self.begun_due = math.inf
        self._done: list[tuple[int, Slot]] = []
        self._plain: list[Frames] = []
        self._told_others = 0

    def enter(self, state: LinkState, now: float) -> None:
        """Change the state; a new connection starts with empty hands."""
        self.state = state
        self.since = now
        if state is LinkState.DOWN:
            self.jobs = 0
            self.drained = False
            self._fresh()

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

    def tell(self, message: protocol.Message) -> None:
        """Send a message without payload."""
        self._plain.append(protocol.plain(message))

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
        messages, self._plain = self._plain, []
        parts, done = self.sender.poll()
        messages.extend(parts)
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
