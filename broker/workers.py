"""A worker as the broker knows it, for as long as its connection lasts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, repeat, takewhile

from zstreamer.broker import dispatch
from zstreamer.broker.introduction import Job
from zstreamer.broker.lots import Lot
from zstreamer.broker.models import Model
from zstreamer.broker.outbox import GO, MORE, Outbox
from zstreamer.broker.patience import WORDS_AN_ITEM
from zstreamer.config import BrokerConfig
from zstreamer.keys.ring import Principal
from zstreamer.wire import protocol
from zstreamer.wire.protocol import MAX_BUDGET, PART, Report, WorkerState
from zstreamer.wire.transfer import Receiver

LATE = 3.0
LATE_FACTOR = 3.0
FIRST_LATE = 10.0
"""Seconds after which a batch that still runs makes its worker late, or so many times as long as
usual; the last where nothing is known of how long it may take. It may have hung; a worker that
is late gets nothing new, and is not ready."""

STALL = 3.0
"""Seconds of silence after which a worker gets nothing new; it says something every second."""

QUIET, OVER = 1.7, 1.4
"""Seconds of silence, and of a batch that usually takes less than a third of them, after which a
probe is told that a worker does not answer."""

MAX_BACKLOG = 10**9
MAX_MICROSECONDS = MAX_BUDGET * 1000
"""What a worker may say of its backlog and its speed; beyond, it is taken for this."""

SLOW = 10
"""Times as long as its measured speed says a worker may take for what it holds."""


_WARM = WorkerState.WARM


class Worker:
    """One worker's connection: its window, its tickets and what is to be sent to it.

    Attributes:
        serves: the model's name without its version.
        tickets: for each item that it holds, wanted or not, the lot that it went out in.
        running: those tickets that its model has begun.
        others: items that it holds from other brokers.
        begun_at: when its model began what it runs, in monotonic seconds.
        late: that has taken suspiciously long.
        drained: an operator has drained it; it gets nothing new until it is resumed.
        facts: what it says of its batches and its machine; empty until it was asked.
        info: what people may want to know of it.
        principal: whose key it has; None where the broker asks for none.
        max_latency: seconds for which it may be told to hold a batch for more items.
        gathers: it was told that more items are coming; `goes`: that none are, and it has not said
            since that it has begun.
        named, declared: bytes that its host and device, and its inputs and outputs, may take.
        heard: when it said anything last, in monotonic seconds.
        moved: when it last had no ticket, or said something of the oldest that it has.
        words: messages that it has sent lately, less what its items pay for; see `patience`.
        told: bytes of what it was told besides its items; it is not known to have read them.
        outbox: what is to be sent to it.
        failures: how often its model's process has failed, and `trouble` why the last time.
        batches, begun: reports of items that have begun, and those items.
    """

    def __init__(
        self,
        session: bytes,
        id: int,
        model: Model,
        job: Job,
        config: BrokerConfig,
        info: dict[str, object],
        now: float,
    ) -> None:
        self.session = session
        self.id = id
        self.model = model
        self.serves = job.model
        self.batch_size = job.batch_size
        self.patience = job.patience
        # One batch runs while the next gathers; with less the batches average half.
        self.window_items = 2 * job.batch_size + job.pool
        self.window_bytes = config.window_bytes
        self.info = info
        self.principal: Principal | None = None
        self.max_latency = job.max_latency
        self.gathers = self.goes = False
        names = ("host", "device")
        self.named = sum(4 * len(str(info.get(key, ""))) for key in names)
        self.declared = sum(
            len(repr(value).encode()) for key, value in info.items() if key not in names
        )
        self.state = WorkerState.BOOTING
        self.failures = 0
        self.trouble = ""
        self.stalled = False
        self.heard = now
        self.begun_at = now
        self.late = self.drained = False
        self.facts: dict[str, object] = {}
        self.batches = self.begun = 0
        self.moved = now
        self._oldest = 0
        self.told = 0
        self.words = 0
        self.tickets: dict[int, Lot] = {}
        self.running: set[int] = set()
        self.bytes = 0
        self.others = 0
        self.beta = 0.0
        self.alpha = 0.0
        self.free_at = 0.0
        self.used = 0
        self.served = 0
        self.receiver = Receiver(config.max_payload)
        self.outbox = Outbox(id, self.tickets, model.bundles)

    @property
    def held(self) -> int:
        """Bytes that are kept on its account."""
        return self.told + self.bytes + self.receiver.bytes

    @property
    def open(self) -> bool:
        """Whether it may be given items now."""
        return (
            len(self.tickets) < self.window_items
            and (self.bytes < self.window_bytes or not self.tickets)
            and self.ready
        )

    @property
    def ready(self) -> bool:
        """Whether it answers, as far as is known."""
        return self.state is _WARM and not (self.drained or self.stalled or self.late)

    def answers(self, now: float) -> bool:
        """Whether it can be relied on now: `ready`, and neither silent nor over its usual time.

        For probes: it says sooner than `ready` that something is wrong, and may take it back.
        """
        return self.ready and now - self.heard <= QUIET and not self.is_over(now)

    def is_over(self, now: float) -> bool:
        """Whether its running batch has taken longer than usual, though it need not have hung."""
        usual = self.batch_time(len(self.running)) if self.running else 0.0
        return bool(usual) and self.age(now) > max(OVER, LATE_FACTOR * usual)

    def age(self, now: float) -> float:
        """Return the seconds that its running batch has taken, 0 where none runs."""
        return now - self.begun_at if self.running else 0.0

    def is_late(self, now: float) -> bool:
        """Whether its running batch takes suspiciously long."""
        if not self.running:
            return False
        usual = self.batch_time(len(self.running))
        return self.age(now) > (max(LATE, LATE_FACTOR * usual) if usual else FIRST_LATE)

    def is_stuck(self, now: float) -> bool:
        """Whether it says nothing of the oldest ticket that it holds, for longer than it may.

        Batches begin with the oldest item, so one that is passed over has been forgotten. To be
        asked several times a second, since what is the oldest changes.
        """
        oldest = next(iter(self.tickets), 0)
        if oldest != self._oldest:
            self._oldest, self.moved = oldest, now
        batches = 1 + self.waiting // self.batch_size
        longest = max(self.patience, SLOW * batches * self.batch_time(self.batch_size))
        return bool(oldest) and now - self.moved > longest

    @property
    def waiting(self) -> int:
        """Items that it holds and has not begun, from all brokers."""
        return len(self.tickets) - len(self.running) + self.others

    @property
    def assigned(self) -> int:
        """Items of this broker that it holds and has not begun."""
        return len(self.tickets) - len(self.running)

    @property
    def room(self) -> int:
        """Items that its window still admits."""
        return self.window_items - len(self.tickets)

    def fits(self, lot: Lot) -> int:
        """Return how many of these items its window admits in bytes, at least one."""
        room = self.window_bytes - self.bytes
        if lot.size <= room:
            return len(lot.ids)
        sums = accumulate(map(len, lot.payloads))
        return max(1, sum(1 for _ in takewhile(lambda size: size <= room, sums)))

    def batch_time(self, items: int) -> float:
        """Return the seconds that a batch of this many items is expected to take."""
        return self.beta + self.alpha * items

    def assign(self, ticket: int, lot: Lot, alone: bool = False) -> None:
        """Give it items under new tickets, of which this is the first.

        Args:
            ticket: of the first item; the others follow.
            lot: the items.
            alone: their group puts them into the outbox.
        """
        count, tickets = len(lot.ids), self.tickets
        lot.worker = self
        lot.ticket = ticket
        for number in range(ticket, ticket + count):
            tickets[number] = lot
        self.bytes += lot.size
        self.model.out += count
        if alone:
            return
        if lot.size > PART and lot.large:
            self.outbox.sender.start(lot.payloads[0], lot)
        else:
            (self.outbox.once if lot.once else self.outbox.lots).append(lot)

    def assign_alone(self, ticket: int, group: list[Lot]) -> None:
        """Give it items that are to run as one batch of their own."""
        for lot in group:
            self.assign(ticket, lot, alone=True)
            ticket += len(lot)
        self.outbox.alone.append(group)

    def hear(self, report: Report) -> int:
        """Take down its speed and its backlog; return by how much that has grown."""
        self.beta = min(report.beta, MAX_MICROSECONDS) / 1e6
        self.alpha = min(report.alpha, MAX_MICROSECONDS) / 1e6
        before, self.others = self.others, min(report.backlog, MAX_BACKLOG)
        return self.others - before

    def release(self, tickets: Sequence[int]) -> list[Lot | None]:
        """Take tickets back and give the window their room; the owner settles `bytes`.

        Returns the lot of each, None for one that is not this worker's.
        """
        lots = list(map(self.tickets.pop, tickets, repeat(None)))
        if self.running:
            self.running.difference_update(tickets)
        if not self.assigned:  # what was to begin may have been cancelled
            self.goes = False
        known = len(lots) - lots.count(None)
        if known:
            self.model.out -= known
            self.words -= WORDS_AN_ITEM * known
            self.told = 0  # it has read WORK, and so what came before that
        return lots

    def give_back(self) -> tuple[list[Lot], list[Lot]]:
        """It is lost: return what of its items is still wanted, first what had not begun."""
        assigned: list[Lot] = []
        begun: list[Lot] = []
        for lot in dict.fromkeys(self.tickets.values()):
            wanted = lot.wanted()
            for lots, has_begun in ((assigned, False), (begun, True)):
                some = [i for i in wanted if (lot.ticket + i in self.running) is has_begun]
                if some:
                    lots.append(lot.pick(some))
        self.model.out -= len(self.tickets)
        self.tickets.clear()
        self.running.clear()
        return assigned, begun

    def start(self, now: float, tickets: Sequence[int]) -> None:
        """Its model has begun these."""
        begun = set(tickets)
        if not begun <= self.tickets.keys():
            begun &= self.tickets.keys()
        self.goes = False
        if not begun:
            return
        if self._oldest in begun and self._oldest not in self.running:
            self.moved = now
        count = len(begun)
        self.begun_at = now
        self.batches += 1
        self.begun += count
        self.running |= begun
        if not self.assigned:  # others are for the batch after this one, and wait for a word
            self.gathers = self.outbox.gathers = False
        self.free_at = now + (self.beta + self.alpha * count or dispatch.UNKNOWN_BETA)

    def tell_more(self, more: bool) -> None:
        """With what it is given now, say whether its batch is to begin without others."""
        if more and self.outbox.word == GO:
            return  # that leaves with these, and they are part of the batch that goes
        self.gathers = self.outbox.gathers = more
        self.goes |= not more  # what it is given after that is for the batch after this one
        self.outbox.word = MORE if more else GO

    def let_go(self) -> None:
        """It is to wait for no more items; one that is not ready may be sent none, and no word."""
        if self.ready:
            self.tell_more(False)
        else:
            self.gathers = self.outbox.gathers = False

    def cancel(self, ticket: int) -> None:
        """An item is no longer wanted: take its ticket back if WORK has not left, else say so."""
        lot = self.tickets[ticket]
        if lot.large and self.outbox.sender.give_up(lot):
            self.release([ticket])
            self.bytes -= lot.size
        else:
            self.outbox.cancels.append(ticket)

    def tell(self, message: protocol.Message) -> None:
        """Send it a message without items."""
        frames = protocol.plain(message)
        self.told += protocol.cost(frames)
        self.outbox.plain.append(frames)
