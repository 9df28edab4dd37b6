"""Items between the queue and the workers, and back: who runs what, and what is run again.

    enqueue ─> queue ─> dispatch ─> WORK ─> REPORT ─> finish
                 ^                              │
                 └──── not begun, or lost ──────┘   a batch whose process died: suspects first

A death in company makes suspects. They run apart, in halves, one group of a model at a time,
until the killer stands alone; two deaths alone are enough. After each death the others have a
turn first. The states of an item are in
docs/protocol.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import compress

from zstreamer import errors
from zstreamer.broker import dispatch
from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.lots import Lot, by_lot
from zstreamer.broker.models import Model, Models
from zstreamer.broker.tally import code_name, outcome_name
from zstreamer.broker.undone import Undone, fate_of, may_have_run, struck_out
from zstreamer.broker.versions import Versions
from zstreamer.broker.workers import Worker
from zstreamer.errors import DeadlineExceeded, NoWorker, ZStreamerError
from zstreamer.system.logs import event
from zstreamer.wire.protocol import NO_PAYLOAD, Fate, Report, Slot, WorkerState
from zstreamer.wire.tags import line, tag

MAX_GROUP = 1024
"""Suspects that run as one batch: they share one message, and each may need a frame of its own."""


class Scheduler:
    """The items of all models, wherever they are.

    Args:
        latency: seconds in which items are to be answered, see `Wanted`.

    Attributes:
        queued_items, queued_bytes: what no worker has yet.
        dirty: peers with something to be sent; a dict for its order, which a set has not.
        counts: what has happened how often, for people.
        bundles: how many items messages carry.
        versions: which of a model's versions gets which items.
        strangers: items for models that nobody has served, by why they were refused.
    """

    def __init__(self, latency: float | None = None) -> None:
        self.models = Models(latency)
        self.versions = Versions(self)
        self.queued_items = 0
        self.queued_bytes = 0
        self.dirty: dict[ClientRecord | Worker, None] = {}
        self.counts: Counter[str] = Counter()
        self.bundles = self.models.bundles
        self.strangers: Counter[str] = Counter()
        self._ticket = 0
        self._use = 0
        self._ready: dict[Model, None] = {}
        self._gathering: dict[Model, None] = {}

    def touch(self, model: Model, worker: Worker | None = None) -> None:
        """Something changed for this model, or this worker: look at it in the next `dispatch`."""
        if worker is not None:
            model.look_at(worker)
        self._ready[model] = None

    def enqueue(self, lot: Lot) -> None:
        """Queue new items."""
        self.queued_items += len(lot.ids)
        self.queued_bytes += lot.size
        self._ready[lot.model] = None
        lot.model.queue.push(lot)
        if lot.model.learns:
            lot.model.gathering.came(lot.arrived, len(lot.ids))

    def cancel(self, client: ClientRecord, ids: Iterable[int]) -> None:
        """The caller no longer waits for these, as far as they are open."""
        lots: dict[Lot, set[int]] = {}
        for id in ids:
            lot = client.items.get(id)
            if lot is not None:
                lots.setdefault(lot, set()).add(id)
        for lot, gone in lots.items():
            self._give_up(lot, gone)

    def _give_up(self, lot: Lot, ids: set[int]) -> None:
        positions = [i for i, id in enumerate(lot.ids) if id in ids]
        if lot.family is not None and lot.family.shadow is not None:
            lot.family.shadow.give_up(lot.client.id, ids)
        lot.client.end(ids, lot.size_of(ids))
        lot.model.tally.errors["cancelled"] += len(ids)
        if lot.worker is None:
            self.queued_items -= len(ids)
            if lot.suspect:  # its group drops it when it is next looked at
                self.queued_bytes -= lot.drop(ids)
            else:
                self.queued_bytes -= lot.model.queue.give_up(lot, ids)
            return
        worker = lot.worker
        for ticket in [lot.ticket + i for i in positions]:
            if ticket not in worker.running:
                worker.cancel(ticket)
        self.dirty[worker] = None
        self.touch(lot.model, worker)  # its window may have room again

    def finish(self, lot: Lot, ids: list[int], slots: list[Slot], size: int) -> int:
        """Some of these items have outcomes: their client gets them. Returns the outcomes' bytes.

        Args:
            lot: what they are in.
            ids: of items that are open.
            slots: their outcomes.
            size: bytes of their inputs.
        """
        client, family = lot.client, lot.family
        if family is not None and family.shadow is not None:
            family.shadow.hear(client.id, ids, slots)
        client.end(ids, size)
        sent = client.answer(ids, slots)
        if self.bundles.followed is not None:
            items = line(tag(client.id, id) for id in ids)
            outcomes = ",".join(dict.fromkeys(map(outcome_name, slots)))
            self.bundles.followed.append(event("items end", outcome=outcomes, items=items))
        self.dirty[client] = None
        self.counts["answered"] += len(ids)
        return sent

    def fail(self, lots: Iterable[Lot], error: ZStreamerError) -> None:
        """All items of these have ended with an error."""
        self._end(lots, errors.to_wire(error))

    def refuse(self, lots: Iterable[Lot], error: ZStreamerError) -> None:
        """All items of these are not taken after all, or not any more: another broker may."""
        self._end(lots, errors.refusal(error))

    def _end(self, lots: Iterable[Lot], error: list[object]) -> None:
        for lot in lots:
            lot.model.tally.errors[code_name(error)] += len(lot)
            self.finish(lot, lot.ids, [error] * len(lot), lot.size)

    def fail_waiting(self, model: Model, error: ZStreamerError) -> None:
        """Fail everything that waits for a model."""
        lots = model.queue.drain()
        while group := model.next_suspects():
            lots.extend(group)
        self._count_out(lots)
        self.refuse(lots, error)

    def hand_back(self, model: Model, client: ClientRecord, parked: bool = False) -> None:
        """No worker is ready: items that may go to another broker do not wait for one here.

        Args:
            model: whose workers are not ready.
            client: whose items.
            parked: also those that were sent to wait here.
        """
        for lot in dict.fromkeys(client.items.values()):
            queued = lot.asked is model and lot.worker is None
            # What is known of a suspect is of use as long as a worker may come back.
            if queued and (parked or lot.movable) and not (lot.suspect and lot.model.workers):
                back = lot.pick(range(len(lot)))
                self._count_out([lot])
                if lot.suspect:
                    lot.drop(set(lot.ids))
                else:
                    lot.model.queue.give_up(lot, set(lot.ids))
                self.refuse([back], NoWorker(model.state_in_words()))

    # Out to the workers

    def dispatch(self, now: float) -> None:
        """Hand out what workers have room for."""
        if self._gathering:
            for model in [m for m in self._gathering if m.gathering.look_at <= now]:
                self._ready[model] = None
        if not self._ready:
            return
        ready, self._ready = self._ready, {}
        for model in ready:
            if model.others_first:
                # A suspect that hangs does so for seconds. Others fill the windows once, not more:
                # under load suspects would wait for ever.
                model.reserved = None
                model.others_first = bool(model.queue.items and not model.open)
                self._dispatch_others(now, model)
            if model.suspects and not model.inquest and not model.others_first:
                self._dispatch_suspects(now, model)
            self._dispatch_others(now, model)

    def wake_at(self) -> float:
        """Return the monotonic seconds at which `dispatch` has something to do; inf for never."""
        if not self._gathering:
            return math.inf
        return min(model.gathering.look_at for model in self._gathering)

    def _gather(self, now: float, model: Model) -> bool:
        """Have the model's workers gather batches; return whether they do."""
        gathering, workers = model.gathering, model.open_to_all()
        alone = not (model.others or model.suspects or model.inquest)
        shares = gathering.shares(now, model.queue.items, model.out, workers) if alone else None
        if shares is None:
            if model in self._gathering:
                del self._gathering[model]
                self._let_go(model.workers.values())
            return False
        self._gathering[model] = None
        if len(workers) < len(model.workers):
            self._let_go(set(model.workers.values()).difference(workers))
        lots = model.queue.take(sum(share.items for share in shares))
        self._count_out(lots)
        lots = self._without_late(now, lots)
        self._share_out(now, lots, [(share.worker, share.items) for share in shares])
        for worker, _, more in shares:
            if not (more and worker.open):
                worker.free_at = now + worker.batch_time(worker.assigned)
            worker.tell_more(more and worker.open)
            self.dirty[worker] = None
        return True

    def _let_go(self, workers: Iterable[Worker]) -> None:
        """Those of them that wait for more items are not to wait any longer."""
        for worker in workers:
            if worker.gathers:
                worker.let_go()
                self.dirty[worker] = None

    def _dispatch_others(self, now: float, model: Model) -> None:
        gathers = model in self._gathering or (model.learns and model.gathering.bursts)
        if gathers and self._gather(now, model):
            return
        queue = model.queue
        while (items := queue.items) and (model.open or model.reserved is not None):
            workers = model.open_to_all()
            if not workers:
                return
            shares = dispatch.earliest(now, workers, items)
            total = sum(count for _, count in shares)
            lots = queue.take(total)
            self._count_out(lots)
            self._share_out(now, self._without_late(now, lots), shares)

    def _share_out(self, now: float, lots: list[Lot], shares: list[tuple[Worker, int]]) -> None:
        """Give each worker as many of the items as it is to have, cutting lots where needed."""
        lots.reverse()
        for worker, count in shares:
            while count and lots and worker.open:
                most = min(count, worker.fits(lots[-1]))
                lot = lots.pop() if len(lots[-1].ids) <= most else lots[-1].take(most)
                items = len(lot.ids)
                worker.assign(self._ticket + 1, lot)
                lot.model.tally.queued.observe(now - lot.arrived, items)
                self._ticket += items
                count -= items
            self._use += 1
            worker.used = self._use
            self.dirty[worker] = None
            worker.model.look_at(worker)
        for lot in reversed(lots):  # windows were full in bytes
            self._count_in(lot)
            lot.model.queue.push_returned(lot)

    def _dispatch_suspects(self, now: float, model: Model) -> None:
        group = self._next_suspects(now, model) if model.open else []
        if not group:
            return
        most = min(MAX_GROUP, max(w.batch_size for w in model.open))
        if len(group) > most:  # the worker it died on had larger batches than those that are left
            self._suspect(model, group[most:], first=True)
            group = group[:most]
        workers = [w for w in model.open if w.room >= len(group) and not w.assigned]
        if not workers:
            # Ordinary items would take each place that comes free, and wait behind suspects: keep
            # one worker for these, and let it finish what it has.
            model.reserved = max(model.open, key=lambda w: (w.window_items, w.room))
            self._suspect(model, group, first=True)
            return
        model.reserved = None
        worker = dispatch.earliest(now, workers, 1)[0][0]
        self._use += 1
        worker.used = self._use
        worker.assign_alone(self._ticket + 1, group)
        model.examiner = worker
        model.inquest = set(range(self._ticket + 1, self._ticket + 1 + len(group)))
        self._ticket += len(group)
        self.dirty[worker] = None
        model.look_at(worker)

    def _next_suspects(self, now: float, model: Model) -> list[Lot]:
        """Take out the next group of suspects that can still be answered in time."""
        while group := model.next_suspects():
            self._count_out(group)
            if group := self._without_late(now, group):
                return group
        return []

    # Back from the workers

    def report(self, now: float, worker: Worker, report: Report) -> None:
        """A worker says what has begun and what is done."""
        model, done = worker.model, report.done
        model.others += worker.hear(report)
        self.bundles.report.observe(len(done))
        if report.begun:
            worker.start(now, report.begun)
        # What is no answer is rare, and much has to be known of it.
        answers = NO_PAYLOAD.isdisjoint(map(type, report.slots))
        undone = None if answers else Undone(worker.running.intersection(done))
        for lot, tickets, slots in by_lot(worker.release(done), done, report.slots):
            if lot is None:
                self._fenced(worker, slots)
            elif undone is None:
                self._answered(now, worker, lot, tickets, slots)
            else:
                for ticket, slot in zip(tickets, slots, strict=True):
                    self._ended(now, worker, lot, ticket, slot, undone)
        if model.inquest:
            model.inquest.difference_update(done)
        worker.late = worker.late and not (report.begun or done)
        if not worker.running:
            worker.free_at = now
        if undone is not None:
            self._take_back(model, undone.returned)
            self.fail(undone.twice, may_have_run())
            self._died(model, undone.in_company())
            self._died_alone(model, undone.alone(), undone.how)
        if model.learns:
            count = len(done) if answers else sum(fate_of(slot) is None for slot in report.slots)
            model.gathering.ended(now, count, worker.beta)  # errors are answers too
        model.look_at(worker)
        self._ready[model] = None

    def _fenced(self, worker: Worker, slots: list[Slot]) -> None:
        """Outcomes have come of tickets that the worker does not hold."""
        self.counts["fenced"] += len(slots)
        for slot in slots:
            worker.receiver.payload(slot)  # what came in parts for it is of no use

    def _answered(
        self, now: float, worker: Worker, lot: Lot, tickets: list[int], slots: list[Slot]
    ) -> None:
        """Outcomes of some of a lot's items have come."""
        ids, size, client = lot.ids, lot.size, lot.client
        if tickets != list(range(lot.ticket, lot.ticket + len(ids))):
            part = [ticket - lot.ticket for ticket in tickets]
            ids = [ids[i] for i in part]
            size = sum([len(lot.payloads[i]) for i in part])
        worker.bytes -= size
        items = client.items
        for id in ids:
            if items.get(id) is not lot:
                wanted = [items.get(id) is lot for id in ids]
                self.counts["unwanted"] += wanted.count(False)
                ids, slots = list(compress(ids, wanted)), list(compress(slots, wanted))
                size = lot.size_of(ids)
                break
        count, model = len(ids), worker.model
        worker.served += count
        model.served += count
        tally = model.tally
        tally.answered += count
        tally.total.observe(now - lot.arrived, count)
        if ids and type(slots[0]) is list:  # errors come one by one, see `_ended`
            tally.failed(slots[0])
        tally.bytes_out += self.finish(lot, ids, slots, size)

    def _ended(
        self, now: float, worker: Worker, lot: Lot, ticket: int, slot: Slot, undone: Undone
    ) -> None:
        """One item has come back, with whatever outcome."""
        fate = fate_of(slot)
        if fate is None:
            self._answered(now, worker, lot, [ticket], [worker.receiver.payload(slot)])
            return
        position = ticket - lot.ticket
        worker.bytes -= len(lot.payloads[position])
        undone.died += fate is Fate.LOST
        if lot.client.items.get(lot.ids[position]) is lot:
            undone.add(lot.pick([position]), ticket, slot)
        else:
            self.counts["unwanted"] += 1

    def worker_gone(self, worker: Worker) -> None:
        """A worker's connection is lost, and with it every ticket it held."""
        model = worker.model
        del model.workers[worker.session]
        model.forget_speed()
        model.others -= worker.others
        if worker.state not in (WorkerState.BROKEN, WorkerState.DRAINING):
            model.gave_up = False  # it may come back
        model.inquest.difference_update(worker.tickets)
        assigned, begun = worker.give_back()
        self._take_back(model, self._without_once(assigned))
        batch = self._without_once(begun)
        for lot in batch:
            lot.losses += 1
        batch = self._without_struck_out(batch)
        if any(lot.losses > 1 or lot.suspect for lot in batch):
            self._suspect_halves(model, batch)
        else:
            self._take_back(model, batch)
        self.touch(model, worker)

    def _died(self, model: Model, batch: list[Lot]) -> None:
        """A model's process died while it ran these, perhaps with others given up meanwhile."""
        self._suspect_halves(model, self._without_once(batch))

    def _died_alone(self, model: Model, items: list[Lot], how: str) -> None:
        """A model's process died while it ran one of these and nothing else."""
        items = self._without_once(items)
        model.others_first = model.others_first or bool(items)
        for item in items:
            item.deaths += 1
        for item in self._without_struck_out(items, how):
            self._suspect(model, [item])

    def _take_back(self, model: Model, lots: list[Lot]) -> None:
        """Items that may run again go on waiting, before those that have not been out."""
        group = [lot for lot in lots if lot.suspect]
        if group:
            self._suspect(model, group)
        cold = not model.warm
        for lot in lots:
            if cold and lot.movable and not lot.suspect and not lot.asked.warm:
                self.refuse([lot], NoWorker(model.state_in_words()))
            elif not lot.suspect:
                model.tally.redispatched += len(lot)
                self._count_in(lot)
                model.queue.push_returned(lot)

    def _suspect_halves(self, model: Model, lots: list[Lot]) -> None:
        model.others_first = True
        batch = [single for lot in lots for single in lot.singles()]
        half = len(batch) // 2
        for group in (batch[:half], batch[half:]):
            if group:
                self._suspect(model, group)

    def _suspect(self, model: Model, group: list[Lot], first: bool = False) -> None:
        for lot in group:
            lot.suspect = True
            self._count_in(lot)
        if first:
            model.suspects.appendleft(group)
        else:
            model.tally.redispatched += len(group)
            model.suspects.append(group)

    def _without_once(self, lots: list[Lot]) -> list[Lot]:
        once = [lot for lot in lots if lot.once]
        if once:
            self.fail(once, may_have_run())
        return [lot for lot in lots if not lot.once]

    def _without_struck_out(self, lots: list[Lot], how: str = "") -> list[Lot]:
        left = []
        for lot in lots:
            if error := struck_out(lot, how):
                self.fail([lot], error)
            else:
                left.append(lot)
        return left

    def _without_late(self, now: float, lots: list[Lot]) -> list[Lot]:
        """Fail those whose budget has ended; return the others."""
        left = []
        for lot in lots:
            if late := lot.late(now):
                error = DeadlineExceeded(
                    "the time for this item ended while it waited in the broker's queue"
                )
                self.fail([lot.pick(late)], error)
                lot = lot.pick(lot.wanted())
            if lot.ids:
                left.append(lot)
        return left

    def _count_in(self, lot: Lot) -> None:
        lot.worker = None
        self.queued_items += len(lot.ids)
        self.queued_bytes += lot.size
        self.touch(lot.model)

    def _count_out(self, lots: Iterable[Lot]) -> None:
        for lot in lots:
            self.queued_items -= len(lot.ids)
            self.queued_bytes -= lot.size
