"""The broker as a state machine: told the time and what arrived, it returns what to send.

    on_client / on_worker   a message has come from a session (a routing id of that side)
    on_gone                 a session cannot be reached any more
    poll                    timers, dispatch; returns the messages that leave now
    wake_at                 when poll must be called again although nothing arrives

No socket, clock, thread, log or random source in here. The states of an item are in
docs/protocol.md, what a policy decides in dispatch.py, the order of waiting in queue.py.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import NamedTuple

from broker import admission, dispatch, snapshot
from broker.clients import Client
from broker.items import Item, ItemState
from broker.models import Model
from broker.workers import STALL, Worker
from zstreamer import errors, protocol
from zstreamer.config import BrokerConfig
from zstreamer.errors import ZStreamerError
from zstreamer.protocol import Fate, Frames, ProtocolError, Role, Slot, WorkerState
from zstreamer.transfer import Parts

TICK = 0.25
"""Seconds between two looks at everything that only time can change."""

MAX_STRIKES = 4
"""A death alone counts 2, a worker lost from sight 1: WorkerLost comes after two deaths alone,
and an item that takes whole hosts down does not go round for ever."""


class Side(Enum):
    """The two ROUTERs."""

    CLIENT = "client"
    WORKER = "worker"


class Send(NamedTuple):
    """A message for the driver to send."""

    side: Side
    session: bytes
    frames: Frames


class BrokerCore:
    """One broker's whole state.

    Args:
        config: limits and times.
        epoch: 63 random bits that tell this start of the broker from all others.
        now: monotonic seconds.
    """

    def __init__(self, config: BrokerConfig, epoch: int, now: float) -> None:
        self.config = config
        self.epoch = epoch
        self.born = now
        self.draining = False
        self.models: dict[str, Model] = {}
        self.clients: dict[int, Client] = {}
        self.client_sessions: dict[bytes, Client] = {}
        self.workers: dict[bytes, Worker] = {}
        self.counts: Counter[str] = Counter()
        self.queued_items = 0
        self.queued_bytes = 0
        self._ticket = 0
        self._use = 0
        self._next_tick = now
        self._dirty: set[Client | Worker] = set()
        self._ready: set[Model] = set()
        self._out: list[Send] = []

    # What arrives

    def on_client(self, now: float, session: bytes, frames: Frames) -> None:
        """A message has come from a client's session."""
        try:
            message = protocol.decode(frames)
        except ProtocolError as error:
            return self._refuse_malformed(Side.CLIENT, session, error)
        client = self.client_sessions.get(session)
        match message:
            case protocol.Hello():
                self._hello_client(now, session, message)
            case protocol.Status():
                info = snapshot.of(self, now)
                self._out.append(
                    Send(Side.CLIENT, session, protocol.plain(protocol.Status(info)))
                )
            case _ if client is None:
                self._refuse(Side.CLIENT, session, errors.BadRequest("unknown session: HELLO first"))
            case protocol.Submit():
                client.acknowledge(message.ack)
                for run in message.runs:
                    self._submit(now, client, run)
            case protocol.Ack():
                client.acknowledge(message.count)
            case protocol.Cancel():
                for id in message.ids:
                    self._cancel(client.items.get(id))
            case protocol.Notice():
                self._ask(client, message.model)
            case protocol.Part():
                self._part(Side.CLIENT, session, client, message)
            case protocol.PartOk():
                client.sender.ok()
                self._dirty.add(client)
            case protocol.Ping():
                pass
            case _:
                self._refuse_malformed(Side.CLIENT, session, ProtocolError("not for a broker"))

    def on_worker(self, now: float, session: bytes, frames: Frames) -> None:
        """A message has come from a worker's session."""
        try:
            message = protocol.decode(frames)
        except ProtocolError as error:
            return self._refuse_malformed(Side.WORKER, session, error)
        worker = self.workers.get(session)
        if worker is not None:
            worker.heard = now
            if worker.stalled:
                worker.stalled = False
                self._ready.add(worker.model)
        match message:
            case protocol.Hello():
                self._hello_worker(now, session, message)
            case _ if worker is None:
                self._refuse(Side.WORKER, session, errors.BadRequest("unknown session: HELLO first"))
            case protocol.Report():
                self._report(now, worker, message)
            case protocol.State():
                self._state(worker, message)
            case protocol.Part():
                self._part(Side.WORKER, session, worker, message)
            case protocol.PartOk():
                worker.sender.ok()
                self._dirty.add(worker)
            case protocol.Ping():
                pass
            case _:
                self._refuse_malformed(Side.WORKER, session, ProtocolError("not for a broker"))

    def on_gone(self, now: float, side: Side, session: bytes) -> None:
        """A session cannot be reached any more: its connection is closed or silent."""
        if side is Side.CLIENT:
            client = self.client_sessions.pop(session, None)
            if client is not None and client.session == session:
                client.disconnect()
                client.lost_at = now
        else:
            worker = self.workers.pop(session, None)
            if worker is not None:
                self._worker_gone(worker)

    def on_pause(self, seconds: float) -> None:
        """The broker itself stood still; nobody is to be judged by that time."""
        for worker in self.workers.values():
            worker.heard += seconds
        for client in self.clients.values():
            client.lost_at += seconds

    def sessions(self, side: Side) -> list[bytes]:
        """Return the routing ids of one side, to be probed."""
        return list(self.client_sessions if side is Side.CLIENT else self.workers)

    def drain(self) -> None:
        """Take no new work; what is queued or running goes on."""
        self.draining = True
        notice = protocol.Notice("", errors.to_wire(self._draining()))
        for client in self.client_sessions.values():
            client.tell(notice)
            self._dirty.add(client)

    @property
    def idle(self) -> bool:
        """Whether every item is answered and every answer read."""
        return not self.queued_items and not any(
            c.items or (c.unread and c.session) for c in self.clients.values()
        )

    # What leaves

    def poll(self, now: float) -> list[Send]:
        """Do what is due, hand out work, and return the messages that leave now."""
        if now >= self._next_tick:
            self._tick(now)
        for model in self._ready:
            self._dispatch(now, model)
        self._ready.clear()
        out, self._out = self._out, []
        for peer in self._dirty:
            if isinstance(peer, Worker):
                if peer.session in self.workers:
                    out.extend(Send(Side.WORKER, peer.session, f) for f in peer.flush(now))
            elif peer.session is not None:
                out.extend(Send(Side.CLIENT, peer.session, f) for f in peer.flush())
        self._dirty.clear()
        return out

    def wake_at(self) -> float:
        """Return the monotonic seconds at which `poll` must be called at the latest."""
        return self._next_tick

    # Sessions

    def _hello_client(self, now: float, session: bytes, hello: protocol.Hello) -> None:
        if not self._acceptable(Side.CLIENT, session, hello, Role.CLIENT):
            return
        client = self.clients.get(hello.id)
        resumed = client is not None
        if client is None:
            client = self.clients[hello.id] = Client(hello.id, self.config.max_payload)
        if client.session is not None:
            self.client_sessions.pop(client.session, None)
        waits = hello.info.get("open", [])
        waits_for = {i for i in waits if type(i) is int} if isinstance(waits, list) else set()
        for id in [id for id in client.items if id not in waits_for]:
            self._cancel(client.items[id])
        known = client.resume(session, waits_for)
        client.info = hello.info | {"open": None}
        self.client_sessions[session] = client
        self._welcome(client, resumed, known)
        if self.draining:
            client.tell(protocol.Notice("", errors.to_wire(self._draining())))

    def _hello_worker(self, now: float, session: bytes, hello: protocol.Hello) -> None:
        if not self._acceptable(Side.WORKER, session, hello, Role.WORKER):
            return
        name, batch, pool = (hello.info.get(key) for key in ("model", "batch_size", "pool"))
        if not (isinstance(name, str) and 0 < len(name) <= admission.MAX_NAME):
            return self._refuse(Side.WORKER, session, errors.BadRequest("bad model name"))
        if type(batch) is not int or type(pool) is not int or batch < 1 or pool < 0:
            return self._refuse(Side.WORKER, session, errors.BadRequest("bad batch_size or pool"))
        for other in [w for w in self.workers.values() if w.id == hello.id]:
            self.on_gone(now, Side.WORKER, other.session)
        model = self._model(name)
        config = self.config
        worker = Worker(
            session,
            hello.id,
            model,
            batch,
            pool,
            config.window_bytes,
            config.max_payload,
            hello.info,
            now,
        )
        self.workers[session] = model.workers[session] = worker
        model.gave_up = False
        self._welcome(worker, False, [])

    def _acceptable(
        self, side: Side, session: bytes, hello: protocol.Hello, role: protocol.Role
    ) -> bool:
        if hello.version != protocol.VERSION:
            words = f"this broker speaks version {protocol.VERSION}, its peer {hello.version}"
            self._refuse(side, session, errors.VersionMismatch(words))
        elif hello.role != role:
            words = f"this port is for {side.value}s; check that the two ports are not exchanged"
            self._refuse(side, session, errors.BadRequest(words))
        else:
            return True
        return False

    def _welcome(self, peer: Client | Worker, resumed: bool, known: list[int]) -> None:
        config = self.config
        items = config.window_items if isinstance(peer, Client) else peer.window_items
        peer.tell(
            protocol.Welcome(
                self.epoch, resumed, known, items, config.window_bytes, config.max_payload
            )
        )
        self._dirty.add(peer)

    def _refuse(self, side: Side, session: bytes, error: ZStreamerError) -> None:
        self.counts["refused"] += 1
        frames = protocol.plain(protocol.Refuse(errors.to_wire(error)))
        self._out.append(Send(side, session, frames))

    def _refuse_malformed(self, side: Side, session: bytes, error: ProtocolError) -> None:
        self.counts["malformed"] += 1
        self._refuse(side, session, errors.BadRequest(str(error)))

    def _part(
        self, side: Side, session: bytes, peer: Client | Worker, message: protocol.Part
    ) -> None:
        peer.receiver.part(message.transfer, message.data)
        if peer.receiver.bytes > self.config.window_bytes + self.config.max_payload:
            self._refuse(side, session, errors.TooLarge("parts of more payloads than the window"))
            return
        peer.tell(protocol.PartOk(message.transfer))
        self._dirty.add(peer)

    # Items come in

    def _submit(self, now: float, client: Client, run: protocol.Run) -> None:
        self._dirty.add(client)
        refusal = self._refusal(now, client, run)
        model = None if refusal else self._model(run.model)
        for id, budget, slot in zip(run.ids, run.budgets, run.slots, strict=True):
            if id in client.items:
                continue
            payload = self._payload(client, slot)
            if isinstance(payload, ZStreamerError) or model is None:
                error = payload if isinstance(payload, ZStreamerError) else refusal
                assert error is not None
                self.counts["refused items"] += 1
                client.answer(id, errors.to_wire(error))
                continue
            seconds = min(budget, protocol.MAX_BUDGET) / 1000
            once = bool(run.flags & protocol.Flag.ONCE)
            item = Item(client, id, model, payload, now + seconds, run.priority, run.lane, once)
            client.open(item)
            self._enqueue(item)
            self.counts["items"] += 1
        if model is not None:
            self._notice(client, model)

    def _refusal(self, now: float, client: Client, run: protocol.Run) -> ZStreamerError | None:
        if self.draining:
            return self._draining()
        model = self.models.get(run.model)
        if model is None or not model.known:
            if not 0 < len(run.model) <= admission.MAX_NAME:
                return errors.BadRequest(f"model name must have 1 to {admission.MAX_NAME} letters")
            if now - self.born >= self.config.model_grace:
                return self._model_not_found(run.model)
        elif model.broken:
            return errors.NoWorker(model.state_in_words(), final=True)
        return admission.refusal(self, client, model, run)

    @staticmethod
    def _draining() -> ZStreamerError:
        return errors.Overloaded("the broker is shutting down", retry_after=1.0)

    def _model_not_found(self, name: str) -> ZStreamerError:
        models = sorted(m.name for m in self.models.values() if m.known)
        words = ", ".join(map(repr, models)) or "none"
        return errors.ModelNotFound(f"no model {name!r} here; served: {words}", models)

    def _payload(self, peer: Client | Worker, slot: Slot) -> protocol.Buffer | ZStreamerError:
        if type(slot) is bytes:
            return slot
        if type(slot) is int:
            came = peer.receiver.take(slot)
            if isinstance(came, Parts):
                return came
            if came is None:
                return errors.BadRequest(f"transfer {slot} is not known")
            limit = self.config.max_payload
            return errors.TooLarge(f"a payload of {came} bytes exceeds the limit of {limit}")
        if slot is None or isinstance(slot, list | int):
            return errors.BadRequest("an item without payload")
        return slot

    def _model(self, name: str) -> Model:
        model = self.models.get(name)
        if model is None:
            model = self.models[name] = Model(name)
        return model

    def _enqueue(self, item: Item, returned: bool = False) -> None:
        item.worker = None
        self.queued_items += 1
        self.queued_bytes += item.size
        if returned:
            item.model.queue.push_returned(item)
        else:
            item.model.queue.push(item)
        self._ready.add(item.model)

    def _cancel(self, item: Item | None) -> None:
        """The caller no longer waits."""
        if item is None:
            return
        state, worker = item.state, item.worker
        if state is ItemState.QUEUED:
            self.queued_items -= 1
            self.queued_bytes -= item.size
            if item.suspect:
                item.state = ItemState.ENDED  # its group drops it when it is next looked at
            else:
                item.model.queue.give_up(item)
        elif state is ItemState.ASSIGNED and worker is not None:
            worker.cancel(item.ticket)
            self._dirty.add(worker)
        begun = state is ItemState.BEGUN
        item.client.end(item)
        item.payload = b""
        if begun and worker is not None:
            worker.begun -= 1

    # Items go out

    def _dispatch(self, now: float, model: Model) -> None:
        if model.suspects and not model.inquest:
            self._dispatch_suspects(now, model)
        queue = model.queue
        if not queue.items:
            return
        while queue.items and (workers := model.open_workers):
            for worker, count in dispatch.earliest(now, workers, queue.items):
                assert isinstance(worker, Worker)
                self._assign(now, worker, count)

    def _assign(self, now: float, worker: Worker, count: int) -> None:
        queue = worker.model.queue
        while count and worker.open:
            item = queue.pop()
            if item is None:
                break
            self.queued_items -= 1
            self.queued_bytes -= item.size
            if item.deadline <= now:
                self._finish(item, errors.to_wire(errors.DeadlineExceeded("expired in the queue")))
                continue
            self._ticket += 1
            worker.assign(self._ticket, item)
            count -= 1
        self._use += 1
        worker.used = self._use
        self._dirty.add(worker)

    def _dispatch_suspects(self, now: float, model: Model) -> None:
        workers = model.open_workers
        group = model.next_suspects() if workers else []
        if not group:
            return
        [(chosen, _), *_] = dispatch.earliest(now, workers, 1)
        assert isinstance(chosen, Worker)
        tickets = []
        for item in group:
            self.queued_items -= 1
            self.queued_bytes -= item.size
            self._ticket += 1
            tickets.append(self._ticket)
        model.inquest = set(tickets)
        chosen.assign_alone(tickets, group)
        self._dirty.add(chosen)

    # Items come back

    def _report(self, now: float, worker: Worker, report: protocol.Report) -> None:
        model = worker.model
        worker.others = report.backlog
        worker.beta, worker.alpha = report.beta / 1e6, report.alpha / 1e6
        begun = 0
        for ticket in report.begun:
            item = worker.tickets.get(ticket)
            if item is not None and item.state is ItemState.ASSIGNED:
                item.state = ItemState.BEGUN
                begun += 1
        if begun:
            worker.begun += begun
            worker.free_at = now + worker.batch_time(begun)
        lost: list[Item] = []
        returned: list[Item] = []
        for ticket, slot in zip(report.done, report.slots, strict=True):
            item = worker.release(ticket)
            if item is None:
                self.counts["fenced"] += 1
                continue
            model.inquest.discard(ticket)
            fate = slot[0] if type(slot) is list else 0
            if item.state is ItemState.ENDED:
                if type(slot) is int:
                    worker.receiver.take(slot)
            elif fate == Fate.LOST:
                lost.append(item)
            elif fate == Fate.RETURNED or fate == Fate.DROPPED:
                returned.append(item)
            else:
                self._outcome(worker, item, slot)
        if worker.begun == 0:
            worker.free_at = now
        self._take_back(model, returned)
        if lost:
            self._died(model, lost)
        self._ready.add(model)

    def _outcome(self, worker: Worker, item: Item, slot: Slot) -> None:
        if type(slot) is not bytes and type(slot) is not list:
            payload = self._payload(worker, slot)
            slot = errors.to_wire(payload) if isinstance(payload, ZStreamerError) else payload
        worker.served += 1
        item.model.served += 1
        self._finish(item, slot)

    def _finish(self, item: Item, outcome: Slot) -> None:
        client = item.client
        client.end(item)
        client.answer(item.id, outcome)
        self._dirty.add(client)
        self.counts["answered"] += 1

    def _fail(self, item: Item, error: ZStreamerError) -> None:
        self._finish(item, errors.to_wire(error))

    def _take_back(self, model: Model, items: list[Item]) -> None:
        """Items that had not begun go on waiting, at no charge."""
        group = [item for item in items if item.suspect]
        if group:
            self._suspect(model, group)
        for item in items:
            if not item.suspect:
                self._enqueue(item, returned=True)

    def _suspect(self, model: Model, group: list[Item]) -> None:
        for item in group:
            item.suspect = True
            item.state = ItemState.QUEUED
            item.worker = None
            self.queued_items += 1
            self.queued_bytes += item.size
        model.suspects.append(group)
        self._ready.add(model)

    def _died(self, model: Model, batch: list[Item]) -> None:
        """A model's process died while running this batch."""
        batch = self._without_once(batch)
        if len(batch) == 1:
            item = batch[0]
            item.deaths += 1
            if not self._struck_out(item):
                self._suspect(model, batch)
            return
        half = len(batch) // 2
        for group in (batch[:half], batch[half:]):
            if group:
                self._suspect(model, group)

    def _without_once(self, items: list[Item]) -> list[Item]:
        for item in items:
            if item.once:
                words = "the worker was lost while it may have run this item, which may run only once"
                self._fail(item, errors.WorkerLost(words))
        return [item for item in items if not item.once]

    def _struck_out(self, item: Item) -> bool:
        if 2 * item.deaths + item.losses < MAX_STRIKES:
            return False
        words = f"the model's process died {item.deaths} times while it ran this item alone"
        if item.losses:
            words += f", and {item.losses} times its worker was lost from sight"
        self._fail(item, errors.WorkerLost(words))
        return True

    def _worker_gone(self, worker: Worker) -> None:
        """A worker's connection is lost, and with it every ticket it held."""
        model = worker.model
        del model.workers[worker.session]
        model.inquest.difference_update(worker.tickets)
        wanted = [i for i in worker.tickets.values() if i.state is not ItemState.ENDED]
        wanted = self._without_once(wanted)
        self._take_back(model, [i for i in wanted if i.state is ItemState.ASSIGNED])
        batch = [i for i in wanted if i.state is ItemState.BEGUN]
        for item in batch:
            item.losses += 1
        batch = [i for i in batch if not self._struck_out(i)]
        if any(item.losses > 1 or item.suspect for item in batch):
            half = len(batch) // 2
            for group in (batch[:half], batch[half:]):
                if group:
                    self._suspect(model, group)
        else:
            for item in batch:
                self._enqueue(item, returned=True)
        worker.tickets.clear()
        self._ready.add(model)
        self._notice_all(model)

    def _state(self, worker: Worker, message: protocol.State) -> None:
        try:
            worker.state = WorkerState(message.state)
        except ValueError:
            return self._refuse_malformed(
                Side.WORKER, worker.session, ProtocolError(f"no such state {message.state}")
            )
        if worker.state in (WorkerState.RESTARTING, WorkerState.BROKEN):
            worker.model.trouble = message.text
            worker.model.gave_up = worker.state is WorkerState.BROKEN
        elif worker.state is WorkerState.WARM:
            worker.model.trouble = ""
            worker.model.gave_up = False
        elif worker.state is WorkerState.DRAINING:
            # What was sent before this echo is on its way; after it nothing follows.
            worker.tell(protocol.State(WorkerState.DRAINING, ""))
            self._dirty.add(worker)
        self._ready.add(worker.model)
        self._notice_all(worker.model)

    # What only time changes

    def _notice(self, client: Client, model: Model) -> None:
        """Tell a client, once, why its items for this model wait."""
        if not model.warm and model.name not in client.noticed:
            self._ask(client, model.name)

    def _ask(self, client: Client, name: str) -> None:
        """Tell a client whether a model is ready, and again when that changes."""
        model = self.models.get(name)
        words = model.state_in_words() if model else f"no worker serves model {name!r}"
        if words:
            client.noticed.add(name)
        else:
            client.noticed.discard(name)
        error = errors.NoWorker(words, final=model is not None and model.broken)
        client.tell(protocol.Notice(name, errors.to_wire(error) if words else []))
        self._dirty.add(client)

    def _notice_all(self, model: Model) -> None:
        for client in self.client_sessions.values():
            if model.name in client.noticed:
                self._ask(client, model.name)
        if model.broken:
            error = errors.NoWorker(model.state_in_words(), final=True)
            for item in self._take_all(model):
                self._fail(item, error)

    def _take_all(self, model: Model) -> list[Item]:
        items = model.queue.drain()
        while group := model.next_suspects():
            items.extend(group)
        self.queued_items -= len(items)
        self.queued_bytes -= sum(item.size for item in items)
        return items

    def _tick(self, now: float) -> None:
        self._next_tick = now + TICK
        for worker in self.workers.values():
            if not worker.stalled and now - worker.heard > STALL:
                worker.stalled = True
                self.counts["stalls"] += 1
        for client in list(self.clients.values()):
            if client.session is None and now - client.lost_at > self.config.resume_grace:
                self._forget(client)
            elif client.unread > self.config.unread_bytes:
                self._reset(client)
        if now - self.born >= self.config.model_grace:
            for model in [m for m in self.models.values() if not m.known]:
                del self.models[model.name]
                error = self._model_not_found(model.name)
                for item in self._take_all(model):
                    self._fail(item, error)

    def _forget(self, client: Client) -> None:
        for item in list(client.items.values()):
            self._cancel(item)
        del self.clients[client.id]

    def _reset(self, client: Client) -> None:
        """It does not read what it asked for; it must not cost the others their memory."""
        self.counts["resets"] += 1
        session = client.session
        client.disconnect()
        self._forget(client)
        if session is not None:
            self.client_sessions.pop(session, None)
            error = errors.Overloaded("answers were not read; the connection is reset")
            self._refuse(Side.CLIENT, session, error)
