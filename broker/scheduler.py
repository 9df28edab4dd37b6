"""Items between the queue and the workers, and back: who runs what, and what is run again.

    enqueue ─> queue ─> dispatch ─> WORK ─> REPORT ─> finish
                 ^                              │
                 └──── not begun, or lost ──────┘   a batch whose process died: suspects first

A death in company makes suspects. They run apart, in halves, one group of a model at a time,
until whoever kills stands alone; two deaths alone are enough. The states of an item are in
docs/protocol.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from broker import dispatch
from broker.clients import Client
from broker.items import Item, ItemState
from broker.models import Model
from broker.workers import Worker
from zstreamer import errors
from zstreamer.errors import DeadlineExceeded, WorkerLost, ZStreamerError
from zstreamer.protocol import Fate, Report, Slot, WorkerState

MAX_STRIKES = 4
"""A death alone counts 2, a worker lost from sight 1: WorkerLost comes after two deaths alone,
and an item that takes whole hosts down does not go round for ever."""


class Scheduler:
    """The items of all models, wherever they are.

    Attributes:
        queued_items, queued_bytes: what no worker has yet.
        dirty: peers with something to be sent; a dict for its order, which a set has not.
        counts: what has happened how often, for people.
    """

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.queued_items = 0
        self.queued_bytes = 0
        self.dirty: dict[Client | Worker, None] = {}
        self.counts: Counter[str] = Counter()
        self._ticket = 0
        self._use = 0
        self._ready: dict[Model, None] = {}

    def model(self, name: str) -> Model:
        """Return the model of this name, a new one where there is none."""
        model = self.models.get(name)
        if model is None:
            model = self.models[name] = Model(name)
        return model

    def touch(self, model: Model) -> None:
        """Something changed for this model: look at it in the next `dispatch`."""
        self._ready[model] = None

    def enqueue(self, item: Item) -> None:
        """Queue a new item."""
        self._count_in(item)
        item.model.queue.push(item)

    def cancel(self, item: Item) -> None:
        """The caller no longer waits."""
        worker = item.worker
        if item.state is ItemState.QUEUED:
            self._count_out(item)
            if not item.suspect:  # its group drops it when it is next looked at
                item.model.queue.give_up(item)
        elif item.state is ItemState.ASSIGNED and worker is not None:
            worker.cancel(item)
            self.dirty[worker] = None
            self.touch(item.model)  # its window may have room again
        elif item.state is ItemState.BEGUN and worker is not None:
            worker.begun -= 1
        item.client.end(item)
        item.payload = b""

    def finish(self, item: Item, outcome: Slot) -> None:
        """The item has an outcome: its client gets it."""
        client = item.client
        client.end(item)
        client.answer(item.id, outcome)
        self.dirty[client] = None
        self.counts["answered"] += 1

    def fail(self, items: Iterable[Item], error: ZStreamerError) -> None:
        """These items have ended with an error."""
        for item in items:
            self.finish(item, errors.to_wire(error))

    def fail_waiting(self, model: Model, error: ZStreamerError) -> None:
        """Fail everything that waits for a model."""
        items = model.queue.drain()
        while group := model.next_suspects():
            items.extend(group)
        for item in items:
            self._count_out(item)
        self.fail(items, error)

    # Out to the workers

    def dispatch(self, now: float) -> None:
        """Hand out what workers have room for."""
        ready, self._ready = self._ready, {}
        for model in ready:
            if model.suspects and not model.inquest:
                self._dispatch_suspects(now, model)
            while model.queue.items and (workers := model.open_workers):
                for worker, count in dispatch.earliest(now, workers, model.queue.items):
                    self._assign(now, worker, count)

    def _assign(self, now: float, worker: Worker, count: int) -> None:
        queue = worker.model.queue
        while count and worker.open and (item := queue.pop()) is not None:
            self._count_out(item)
            if item.deadline <= now:
                self.fail([item], DeadlineExceeded("the budget ended in the broker's queue"))
                continue
            self._ticket += 1
            worker.assign(self._ticket, item)
            count -= 1
        self._use += 1
        worker.used = self._use
        self.dirty[worker] = None

    def _dispatch_suspects(self, now: float, model: Model) -> None:
        group = self._next_suspects(now, model) if model.open_workers else []
        if not group:
            return
        most = max(w.window_items for w in model.open_workers)
        if len(group) > most:  # the worker it died on had larger batches than those that are left
            self._suspect(model, group[most:], first=True)
            group = group[:most]
        workers = [w for w in model.open_workers if w.room >= len(group)]
        if not workers:
            self._suspect(model, group, first=True)
            return
        worker = dispatch.earliest(now, workers, 1)[0][0]
        tickets = range(self._ticket + 1, self._ticket + 1 + len(group))
        self._ticket += len(group)
        model.inquest = set(tickets)
        worker.assign_alone(list(tickets), group)
        self.dirty[worker] = None

    def _next_suspects(self, now: float, model: Model) -> list[Item]:
        """Take out the next group of suspects that can still be answered in time."""
        late = DeadlineExceeded("the budget ended in the broker's queue")
        while group := model.next_suspects():
            for item in group:
                self._count_out(item)
            self.fail([item for item in group if item.deadline <= now], late)
            group = [item for item in group if item.state is ItemState.QUEUED]
            if group:
                return group
        return []

    # Back from the workers

    def report(self, now: float, worker: Worker, report: Report) -> None:
        """A worker says what has begun and what is done."""
        model = worker.model
        worker.others = report.backlog
        worker.beta, worker.alpha = report.beta / 1e6, report.alpha / 1e6
        worker.start(now, report.begun)
        lost: list[Item] = []
        returned: list[Item] = []
        died = company = 0
        for ticket, slot in zip(report.done, report.slots, strict=True):
            item = worker.release(ticket)
            if item is None:
                self.counts["fenced"] += 1
                continue
            model.inquest.discard(ticket)
            fate = slot[0] if type(slot) is list else 0
            if fate == Fate.LOST:
                died += 1
                company = max(company, _batch_size(slot))
            outcome = slot if type(slot) is bytes else worker.receiver.payload(slot)
            if item.state is ItemState.ENDED:
                self.counts["unwanted"] += 1
            elif fate == Fate.LOST:
                lost.append(item)
            elif fate in (Fate.RETURNED, Fate.DROPPED):
                returned.append(item)
            else:
                worker.served += 1
                model.served += 1
                self.finish(item, outcome)
        if not worker.begun:
            worker.free_at = now
        self._take_back(model, returned)
        self._died(model, lost, alone=max(died, company) == 1)
        self.touch(model)

    def worker_gone(self, worker: Worker) -> None:
        """A worker's connection is lost, and with it every ticket it held."""
        model = worker.model
        del model.workers[worker.session]
        if worker.state not in (WorkerState.BROKEN, WorkerState.DRAINING):
            model.gave_up = False  # it may come back
        model.inquest.difference_update(worker.tickets)
        wanted = [i for i in worker.tickets.values() if i.state is not ItemState.ENDED]
        worker.tickets.clear()
        wanted = self._without_once(wanted)
        self._take_back(model, [i for i in wanted if i.state is ItemState.ASSIGNED])
        batch = [i for i in wanted if i.state is ItemState.BEGUN]
        for item in batch:
            item.losses += 1
        batch = self._without_struck_out(batch)
        if any(item.losses > 1 or item.suspect for item in batch):
            self._suspect_halves(model, batch)
        else:
            self._take_back(model, batch)
        self.touch(model)

    def _died(self, model: Model, batch: list[Item], alone: bool) -> None:
        """A model's process died while it ran these, perhaps with others given up meanwhile."""
        batch = self._without_once(batch)
        if alone:
            for item in batch:
                item.deaths += 1
            batch = self._without_struck_out(batch)
        self._suspect_halves(model, batch)

    def _take_back(self, model: Model, items: list[Item]) -> None:
        """Items that may run again go on waiting, before those that have not been out."""
        group = [item for item in items if item.suspect]
        if group:
            self._suspect(model, group)
        for item in items:
            if not item.suspect:
                self._count_in(item)
                model.queue.push_returned(item)

    def _suspect_halves(self, model: Model, batch: list[Item]) -> None:
        half = len(batch) // 2
        for group in (batch[:half], batch[half:]):
            if group:
                self._suspect(model, group)

    def _suspect(self, model: Model, group: list[Item], first: bool = False) -> None:
        for item in group:
            item.suspect = True
            item.state = ItemState.QUEUED
            self._count_in(item)
        if first:
            model.suspects.appendleft(group)
        else:
            model.suspects.append(group)

    def _without_once(self, items: list[Item]) -> list[Item]:
        words = "the worker was lost while it may have run this item, which may run only once"
        self.fail([item for item in items if item.once], WorkerLost(words))
        return [item for item in items if not item.once]

    def _without_struck_out(self, items: list[Item]) -> list[Item]:
        left = []
        for item in items:
            if 2 * item.deaths + item.losses < MAX_STRIKES:
                left.append(item)
                continue
            words = f"the model's process died {item.deaths} times while it ran this item alone"
            if item.losses:
                words += f", and {item.losses} times its worker was lost from sight"
            self.fail([item], WorkerLost(words))
        return left

    def _count_in(self, item: Item) -> None:
        item.worker = None
        self.queued_items += 1
        self.queued_bytes += item.size
        self.touch(item.model)

    def _count_out(self, item: Item) -> None:
        self.queued_items -= 1
        self.queued_bytes -= item.size


def _batch_size(lost: Slot) -> int:
    """How many items a batch had, some perhaps another broker's, by a LOST outcome; 0 unknown."""
    details = lost[2] if isinstance(lost, list) else None
    size = details.get("batch") if isinstance(details, dict) else None
    return size if isinstance(size, int) else 0
