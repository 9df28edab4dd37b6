"""The broker as a state machine: told the time and what arrived, it returns what to send.

    on_client / on_worker   a message has come from a session (a routing id of that side)
    on_gone                 a session cannot be reached any more
    poll                    timers, dispatch; returns the messages that leave now
    wake_at                 when poll must be called again although nothing arrives

No socket, clock, thread, log or random source in here. This file knows sessions; what is admitted
is in admission.py, what becomes of items in scheduler.py, the order of waiting in queue.py, and
who gets them in dispatch.py.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import NamedTuple

from zstreamer import errors
from zstreamer.broker import admission, facts, introduction, snapshot
from zstreamer.broker.admission import Admission
from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.facts import Survey
from zstreamer.broker.holds import Holds
from zstreamer.broker.models import Model
from zstreamer.broker.patience import (
    FEWER_WORDS,
    MAX_WORDS,
    WORDS_AN_ITEM,
    WORTH_ITS_WORD,
    Patience,
)
from zstreamer.broker.scheduler import Scheduler
from zstreamer.broker.workers import STALL, Worker
from zstreamer.config import BrokerConfig
from zstreamer.errors import ZStreamerError
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Frames, ProtocolError, Role, WorkerState

TICK = 0.25
"""Seconds between two looks at everything that only time can change."""

RATE_WEIGHT = 0.1
"""Weight of the latest tick in a model's rate: the last few seconds count."""

MAX_NOTICES = 1000
"""Models of which one client is told when their state changes."""

MAX_TROUBLE = 8 * 1024
"""Characters that are kept of why a model could not start."""


_READY = int(protocol.Flag.READY)


class Side(Enum):
    """The two ROUTERs."""

    CLIENT = "client"
    WORKER = "worker"


class Outgoing(NamedTuple):
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

    Attributes:
        patience: how much longer the broker listens to the sessions of a side that err.
        troubles: what has gone wrong here and cost a peer its session; the driver logs them.
        holds: workers that an operator has drained, by name.
        survey: what workers and this process say of themselves while somebody looks.
    """

    def __init__(self, config: BrokerConfig, epoch: int, now: float) -> None:
        self.config = config
        self.epoch = epoch
        self.born = now
        self.scheduler = Scheduler()
        self.admission = Admission(config, self.scheduler, now)
        self.clients: dict[int, ClientRecord] = {}
        self.client_sessions: dict[bytes, ClientRecord] = {}
        self.workers: dict[bytes, Worker] = {}
        self.patience = {side: Patience() for side in Side}
        self.troubles: list[Exception] = []
        self.holds = Holds()
        self.survey = Survey()
        self._dirty = self.scheduler.dirty
        self._next_tick = now
        self._out: list[Outgoing] = []

    @property
    def draining(self) -> bool:
        """Whether it takes no new work."""
        return self.admission.draining

    @property
    def models(self) -> dict[str, Model]:
        """Models by name."""
        return self.scheduler.models

    @property
    def counts(self) -> Counter[str]:
        """What has happened how often."""
        return self.scheduler.counts

    # What arrives

    def on_client(self, now: float, session: bytes, frames: Frames) -> None:
        """A message has come from a client's session."""
        try:
            message = protocol.decode(frames)
        except ProtocolError as error:
            self._refuse_malformed(now, Side.CLIENT, session, str(error))
            return
        client = self.client_sessions.get(session)
        if client is not None:
            client.words += 1
            if client.words > MAX_WORDS:
                self._cut_short(now, Side.CLIENT, session)
                return
        if client is not None and type(message) is protocol.Submit:
            client.acknowledge(message.ack)
            if sum(len(run.ids) for run in message.runs) > self.config.window_items:
                self._refuse_malformed(now, Side.CLIENT, session, "more items than the window")
                return
            for run in message.runs:
                self._submit(now, client, run)
        elif isinstance(message, protocol.Hello):
            self._hello_client(now, session, message)
        elif isinstance(message, protocol.Status):
            self._tell_status(now, session, message)
        elif client is None:
            self._refuse_unknown(now, Side.CLIENT, session)
        else:
            self._from_client(now, session, client, message)

    def _from_client(
        self, now: float, session: bytes, client: ClientRecord, message: protocol.Message
    ) -> None:
        match message:
            case protocol.Ack():
                client.acknowledge(message.read)
            case protocol.Cancel():
                before = len(client.items)
                self.scheduler.cancel(client, message.ids)
                client.words -= WORDS_AN_ITEM * (before - len(client.items))
            case protocol.Notice():
                if message.error:
                    self._hand_back(client, message.model)
                else:
                    self._tell_state(client, message.model)
            case protocol.Part():
                self._part(now, Side.CLIENT, client, message)
            case protocol.PartOk():
                client.words -= client.sender.ok()
                self._dirty[client] = None
            case protocol.Ping():
                pass
            case _:
                self._refuse_malformed(now, Side.CLIENT, session, "not for a broker")

    def on_worker(self, now: float, session: bytes, frames: Frames) -> None:
        """A message has come from a worker's session."""
        try:
            message = protocol.decode(frames)
        except ProtocolError as error:
            self._refuse_malformed(now, Side.WORKER, session, str(error))
            return
        worker = self.workers.get(session)
        if isinstance(message, protocol.Hello):
            self._hello_worker(now, session, message)
        elif worker is None:
            self._refuse_unknown(now, Side.WORKER, session)
        else:
            worker.heard = now
            worker.words += 1
            if worker.words > MAX_WORDS:
                self._cut_short(now, Side.WORKER, session)
                return
            if worker.stalled:
                worker.stalled = False
                self.scheduler.touch(worker.model, worker)
            self._from_worker(now, session, worker, message)

    def _from_worker(
        self, now: float, session: bytes, worker: Worker, message: protocol.Message
    ) -> None:
        match message:
            case protocol.Report():
                self.scheduler.report(now, worker, message)
            case protocol.State():
                self._worker_state(now, worker, message)
            case protocol.Part():
                self._part(now, Side.WORKER, worker, message)
            case protocol.PartOk():
                worker.words -= worker.sender.ok()
                self._dirty[worker] = None
            case protocol.Status():
                worker.facts = facts.kept(message.info)
                worker.told = 0  # it has read the question, and so what came before that
            case protocol.Ping():
                pass
            case _:
                self._refuse_malformed(now, Side.WORKER, session, "not for a broker")

    def on_gone(self, now: float, side: Side, session: bytes) -> None:
        """A session cannot be reached any more: its connection is closed or silent."""
        if side is Side.CLIENT:
            client = self.client_sessions.pop(session, None)
            if client is not None and client.session == session:
                client.disconnect()
                client.lost_at = now
        elif (worker := self.workers.pop(session, None)) is not None:
            self.scheduler.worker_gone(worker)
            self._tell_all(worker.model)

    def on_pause(self, seconds: float) -> None:
        """The broker itself stood still; that time counts against no peer."""
        for worker in self.workers.values():
            worker.heard += seconds
            worker.begun_at += seconds
            worker.moved += seconds
        for client in self.clients.values():
            client.lost_at += seconds

    def give_up_on(self, now: float, side: Side, session: bytes) -> None:
        """A message of this session could not be handled: the fault is here, the others go on."""
        self.counts["failures"] += 1
        error = errors.BadRequest("the broker failed on a message; see its log")
        self._refuse(now, side, session, error)
        self.on_gone(now, side, session)

    def deaf(self, side: Side) -> dict[bytes, float]:
        """Return the sessions that are not to be heard, as long as they are not."""
        return self.patience[side].deaf

    def sessions(self, side: Side) -> list[bytes]:
        """Return the routing ids of one side, to be probed."""
        return list(self.client_sessions if side is Side.CLIENT else self.workers)

    def knows(self, side: Side, session: bytes) -> bool:
        """Whether a session has said HELLO and is not gone."""
        return session in (self.client_sessions if side is Side.CLIENT else self.workers)

    def drain(self) -> None:
        """Take no new work; what is queued or running goes on."""
        self.admission.draining = True
        for client in self.client_sessions.values():
            self._tell_draining(client)

    def resume(self) -> None:
        """Take new work again after `drain`."""
        self.admission.draining = False
        for client in self.client_sessions.values():
            client.tell(protocol.Notice("", []))
            self._dirty[client] = None

    def look_at_holds(self) -> None:
        """The names that an operator has drained have changed."""
        for worker in self.workers.values():
            before = worker.model.state_in_words()
            worker.drained = self.holds.holds(worker)
            worker.model.forget_speed()
            self.scheduler.touch(worker.model, worker)
            if worker.model.state_in_words() != before:
                self._tell_all(worker.model)

    @property
    def idle(self) -> bool:
        """Whether every item is answered and every answer read."""
        return not any(c.items or (c.unread and c.session) for c in self.clients.values())

    def snapshot(self, now: float) -> dict[str, object]:
        """Return its state in plain values, as `zstreamer.broker.snapshot` describes them."""
        return snapshot.of(self.scheduler, self._own_state(now), now)

    def _own_state(self, now: float) -> dict[str, object]:
        return {
            "epoch": self.epoch,
            "uptime": now - self.born,
            "draining": self.draining,
            "clients": len(self.client_sessions),
            "workers": len(self.workers),
            "held": list(self.holds.names),
            **self.survey.own,
            **snapshot.sessions(self.client_sessions.values(), self.config),
        }

    def look(self, now: float) -> None:
        """Somebody looks: have workers say how they are, but not all the time."""
        if self.survey.due(now):
            for worker in self.workers.values():
                worker.tell(protocol.Status({}))
                self._dirty[worker] = None

    def largest(self, count: int) -> list[tuple[int, str]]:
        """Return the bytes that the largest sessions hold here, and who they are."""
        clients = [
            (c.held, f"client={c.id} {introduction.words(c.info)}") for c in self.clients.values()
        ]
        workers = [
            (w.held, f"worker={w.id} {introduction.words(w.info)}") for w in self.workers.values()
        ]
        return sorted(clients + workers, reverse=True)[:count]

    # What leaves

    def poll(self, now: float) -> list[Outgoing]:
        """Do what is due, hand out work, and return the messages that leave now."""
        if now >= self._next_tick:
            self._tick(now)
        self.scheduler.dispatch(now)
        out, self._out = self._out, []
        dirty = list(self._dirty)
        self._dirty.clear()
        for peer in dirty:
            try:
                if isinstance(peer, Worker):
                    if peer.session in self.workers:
                        out.extend(Outgoing(Side.WORKER, peer.session, f) for f in peer.flush(now))
                elif peer.session is not None:
                    out.extend(Outgoing(Side.CLIENT, peer.session, f) for f in peer.flush())
            except Exception as error:  # noqa: BLE001  # the driver logs it
                self.troubles.append(error)
                self._give_up_sending(now, peer)
        return out

    def _give_up_sending(self, now: float, peer: ClientRecord | Worker) -> None:
        """What was for this peer cannot be sent: it alone is to lose by that."""
        if isinstance(peer, Worker):
            self.give_up_on(now, Side.WORKER, peer.session)
        elif peer.session is not None:
            self.give_up_on(now, Side.CLIENT, peer.session)
            self._forget(peer)  # what it would resume could not be sent either

    def wake_at(self) -> float:
        """Return the monotonic seconds at which `poll` must be called at the latest."""
        return self._next_tick

    # Sessions

    def _hello_client(self, now: float, session: bytes, hello: protocol.Hello) -> None:
        if not self._acceptable(now, Side.CLIENT, session, hello, Role.CLIENT):
            return
        self.on_gone(now, Side.CLIENT, session)
        client = self.clients.get(hello.id)
        resumed = client is not None
        if client is None:
            client = self.clients[hello.id] = ClientRecord(hello.id, self.config.max_payload)
        if client.session is not None:
            self._replace(now, Side.CLIENT, client.session)
            self.client_sessions.pop(client.session, None)
        waits = hello.info.get("open", [])
        waits_for = {i for i in waits if type(i) is int} if isinstance(waits, list) else set()
        self.scheduler.cancel(client, [id for id in client.items if id not in waits_for])
        known = client.resume(session, waits_for)
        client.info = introduction.kept(hello.info)
        self.client_sessions[session] = client
        self._welcome(client, self.config.window_items, resumed, known)
        for model in {lot.model: None for lot in client.items.values()}:
            if not model.warm:
                self._tell_state(client, model.name)
        if self.draining:
            self._tell_draining(client)

    def _hello_worker(self, now: float, session: bytes, hello: protocol.Hello) -> None:
        if not self._acceptable(now, Side.WORKER, session, hello, Role.WORKER):
            return
        job = introduction.job(hello.info, protocol.MAX_NAME)
        if isinstance(job, str):
            self._refuse(now, Side.WORKER, session, errors.BadRequest(job))
            return
        if job.model not in self.models and self.scheduler.is_full:
            self._refuse(now, Side.WORKER, session, errors.Overloaded("there are too many models"))
            return
        for other in [w for w in self.workers.values() if w.id == hello.id]:
            if other.session != session:
                self._replace(now, Side.WORKER, other.session)
            self.on_gone(now, Side.WORKER, other.session)
        self.on_gone(now, Side.WORKER, session)
        model = self.scheduler.model(job.model)
        model.known = True
        info = introduction.kept(hello.info)
        worker = Worker(session, hello.id, model, job, self.config, info, now)
        worker.drained = self.holds.holds(worker)
        self.workers[session] = model.workers[session] = worker
        model.gave_up = False
        model.queue.fit(job.batch_size)
        self._welcome(worker, worker.window_items, False, [])

    def _acceptable(
        self, now: float, side: Side, session: bytes, hello: protocol.Hello, role: protocol.Role
    ) -> bool:
        if self.knows(side, session) and not self.patience[side].fault(now, session):
            self._go_deaf(now, side, session)
        elif hello.version != protocol.VERSION:
            words = f"this broker speaks version {protocol.VERSION}, its peer {hello.version}"
            self._refuse(now, side, session, errors.VersionMismatch(words))
        elif hello.role != role:
            words = f"this port is for {side.value}s; check that the two ports are not swapped"
            self._refuse(now, side, session, errors.BadRequest(words))
        else:
            return True
        return False

    def _welcome(
        self, peer: ClientRecord | Worker, window: int, resumed: bool, known: list[int]
    ) -> None:
        config = self.config
        welcome = protocol.Welcome(
            self.epoch, resumed, known, window, config.window_bytes, config.max_payload
        )
        peer.tell(welcome)
        self._dirty[peer] = None

    def _refuse(self, now: float, side: Side, session: bytes, error: ZStreamerError) -> None:
        self.counts["refused"] += 1
        frames = protocol.plain(protocol.Refuse(errors.to_wire(error)))
        self._out.append(Outgoing(side, session, frames))
        if not self.patience[side].fault(now, session):
            self._go_deaf(now, side, session)

    def _replace(self, now: float, side: Side, session: bytes) -> None:
        words = "another connection sent HELLO with the id of this one and replaces it"
        self._refuse(now, side, session, errors.BadRequest(words))

    def _refuse_malformed(self, now: float, side: Side, session: bytes, words: str) -> None:
        self.counts["malformed"] += 1
        self._refuse(now, side, session, errors.BadRequest(words))

    def _refuse_unknown(self, now: float, side: Side, session: bytes) -> None:
        self._refuse(now, side, session, errors.BadRequest("unknown session: HELLO first"))

    def _cut_short(self, now: float, side: Side, session: bytes) -> None:
        """It sends faster than it can be read, and nothing useful."""
        words = "messages that do no work arrive faster than they can be read"
        self._refuse(now, side, session, errors.Overloaded(words))
        self.patience[side].give_up(now, session)
        self._go_deaf(now, side, session)

    def _go_deaf(self, now: float, side: Side, session: bytes) -> None:
        """It goes on although it was refused again and again: it is ignored from now on."""
        self.counts["deaf"] += 1
        self.on_gone(now, side, session)

    def _part(
        self, now: float, side: Side, peer: ClientRecord | Worker, message: protocol.Part
    ) -> None:
        session = peer.session or b""
        most = self.config.window_bytes + self.config.max_payload
        if peer.receiver.bytes + len(message.data) > most:
            error = errors.TooLarge("parts of more payloads than the window")
            self._refuse(now, side, session, error)
            self.on_gone(now, side, session)
            return
        peer.words -= len(message.data) >= WORTH_ITS_WORD
        peer.receiver.part(message.transfer, message.data)
        peer.tell(protocol.PartOk(message.transfer))
        self._dirty[peer] = None

    def _tell_status(self, now: float, session: bytes, asked: protocol.Status) -> None:
        if asked.info.get("look"):
            self.look(now)
        state = self._own_state(now)
        found = snapshot.page(self.scheduler, state, now, asked.info.get("from"))
        page = protocol.plain(protocol.Status(found))
        if self.patience[Side.CLIENT].ask(now, session, len(page[0])):
            self._out.append(Outgoing(Side.CLIENT, session, page))
        else:
            words = "STATUS is requested faster than its answers are read"
            self._refuse(now, Side.CLIENT, session, errors.Overloaded(words))

    # Items

    def _submit(self, now: float, client: ClientRecord, run: protocol.Run) -> None:
        self._dirty[client] = None
        taken = self.admission.submit(now, client, run)
        if taken:
            client.words -= 1
        # One that has other brokers hears of a model that was not ready when it is.
        if (taken or run.flags & _READY) and run.model not in client.noticed:
            model = self.models.get(run.model)
            if model is None or not model.warm:
                self._tell_state(client, run.model)

    # Models' states

    def _worker_state(self, now: float, worker: Worker, message: protocol.State) -> None:
        before = worker.model.state_in_words()
        try:
            worker.state = WorkerState(message.state)
        except ValueError:
            words = f"no such state {message.state}"
            self._refuse_malformed(now, Side.WORKER, worker.session, words)
            return
        worker.moved = now
        model = worker.model
        if worker.state in (WorkerState.RESTARTING, WorkerState.BROKEN):
            worker.failures += 1
            worker.trouble = model.trouble = errors.shortened(message.text, MAX_TROUBLE)
            model.gave_up = worker.state is WorkerState.BROKEN
        elif worker.state is WorkerState.WARM:
            model.trouble = ""
            model.gave_up = False
        elif worker.state is WorkerState.DRAINING:
            # What was sent before this echo is on its way; after it nothing follows.
            worker.tell(protocol.State(WorkerState.DRAINING, ""))
            self._dirty[worker] = None
        model.forget_speed()
        self.scheduler.touch(model, worker)
        if model.state_in_words() != before:  # a worker that repeats itself must not flood clients
            self._tell_all(model)

    def _tell_state(self, client: ClientRecord, name: str) -> None:
        """Tell a client whether a model is ready, and again when that changes."""
        full = len(client.noticed) >= MAX_NOTICES or not 0 < len(name) <= protocol.MAX_NAME
        if full and name not in client.noticed:
            return
        model = self.models.get(name)
        words = model.state_in_words() if model else f"no worker serves model {name!r}"
        if words:
            client.noticed[name] = hash(words)
        else:
            client.noticed.pop(name, None)
        error = errors.NoWorker(words, final=model is not None and model.broken)
        client.tell(protocol.Notice(name, errors.to_wire(error) if words else []))
        self._dirty[client] = None

    def _hand_back(self, client: ClientRecord, name: str) -> None:
        """Another broker is ready for a model: what waits here without a worker goes there."""
        model = self.models.get(name)
        if model is not None and not model.warm:
            self.scheduler.hand_back(model, client, parked=True)

    def _tell_all(self, model: Model) -> None:
        cold = not model.warm
        words = model.state_in_words()
        for client in self.clients.values():
            waits = cold and any(lot.model is model for lot in client.items.values())
            told = client.noticed.get(model.name)
            news = waits if told is None else hash(words) != told
            if client.session and news:
                self._tell_state(client, model.name)
            if waits and not model.broken:
                self.scheduler.hand_back(model, client)
        if model.broken:
            error = errors.NoWorker(model.state_in_words(), final=True)
            self.scheduler.fail_waiting(model, error)

    def _tell_draining(self, client: ClientRecord) -> None:
        client.tell(protocol.Notice("", errors.to_wire(admission.draining())))
        self._dirty[client] = None

    # What only time changes

    def _tick(self, now: float) -> None:
        seconds = now - self._next_tick + TICK
        self._next_tick = now + TICK
        self._look_at_workers(now)
        self._look_at_clients(now)
        for model in self.models.values():
            model.measure(seconds, RATE_WEIGHT)
        self.scheduler.forget_idle(now)
        for patience in self.patience.values():
            patience.forget(now)
        if now - self.born >= self.config.model_grace:
            for model in [m for m in self.models.values() if not m.known]:
                del self.models[model.name]
                self.scheduler.fail_waiting(model, self.admission.model_not_found(model.name))

    def _look_at_workers(self, now: float) -> None:
        for worker in list(self.workers.values()):
            if not worker.stalled and now - worker.heard > STALL:
                worker.stalled = True
                worker.model.look_at(worker)
                self.counts["stalls"] += 1
            if not worker.late and worker.is_late(now):
                worker.late = True
                worker.model.look_at(worker)
                self.counts["late"] += 1
            worker.words = max(0, worker.words - int(FEWER_WORDS * TICK))
            if not worker.tickets:
                worker.moved = now
            elif now - worker.moved > worker.longest_silence:
                self._take_all_back(now, worker)
            elif worker.told > self.config.unread_bytes:
                self._reset_worker(now, worker)

    def _look_at_clients(self, now: float) -> None:
        for client in list(self.clients.values()):
            client.words = max(0, client.words - int(FEWER_WORDS * TICK))
            client.peak_before, client.peak = client.peak, len(client.items)
            if client.session is None and now - client.lost_at > self.config.resume_grace:
                self._forget(client)
            elif client.unread + client.told > self.config.unread_bytes:
                self._reset(now, client)

    def _forget(self, client: ClientRecord) -> None:
        self.scheduler.cancel(client, list(client.items))
        del self.clients[client.id]

    def _take_all_back(self, now: float, worker: Worker) -> None:
        """It says that it is there, and nothing of what it holds."""
        self.counts["stuck"] += 1
        words = f"no report on its tickets for {now - worker.moved:.0f} s"
        self._refuse(now, Side.WORKER, worker.session, errors.DeadlineExceeded(words))
        self.on_gone(now, Side.WORKER, worker.session)

    def _reset_worker(self, now: float, worker: Worker) -> None:
        self.counts["resets"] += 1
        error = errors.Overloaded("requested data was not read; the connection is reset")
        self._refuse(now, Side.WORKER, worker.session, error)
        self.on_gone(now, Side.WORKER, worker.session)

    def _reset(self, now: float, client: ClientRecord) -> None:
        """It does not read what it asked for; it must not cost the others their memory."""
        self.counts["resets"] += 1
        session = client.session
        client.disconnect()
        self._forget(client)
        if session is not None:
            self.client_sessions.pop(session, None)
            error = errors.Overloaded("answers were not read; the connection is reset")
            self._refuse(now, Side.CLIENT, session, error)
