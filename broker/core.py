"""The broker as a state machine: told the time and what arrived, it returns what to send.

    on_client / on_worker   a message has come from a session (a routing id of that side)
    on_gone                 a session cannot be reached any more
    poll                    timers, dispatch; returns the messages that leave now
    wake_at                 when poll must be called again although nothing arrives

No socket, clock, thread, log or random source in here. This file knows sessions; who is let in
is in admission.py, what becomes of items in scheduler.py, the order of waiting in queue.py, and
who gets them in dispatch.py.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import NamedTuple

from zstreamer import errors
from zstreamer.broker import admission, snapshot
from zstreamer.broker.admission import Admission
from zstreamer.broker.clients import Client
from zstreamer.broker.models import Model
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


MAX_BATCH = 2**20
"""Items of a worker's batch, or of its pool, beyond which its HELLO is a mistake."""

MAX_NOTICES = 1000
"""Models of which one client is told when their state changes."""


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
        self.scheduler = Scheduler()
        self.admission = Admission(config, self.scheduler, now)
        self.clients: dict[int, Client] = {}
        self.client_sessions: dict[bytes, Client] = {}
        self.workers: dict[bytes, Worker] = {}
        self._dirty = self.scheduler.dirty
        self._next_tick = now
        self._out: list[Send] = []

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
            self._refuse_malformed(Side.CLIENT, session, str(error))
            return
        client = self.client_sessions.get(session)
        if client is not None and type(message) is protocol.Submit:
            client.acknowledge(message.ack)
            for run in message.runs:
                self._submit(now, client, run)
        elif isinstance(message, protocol.Hello):
            self._hello_client(now, session, message)
        elif isinstance(message, protocol.Status):
            status = protocol.plain(protocol.Status(self.snapshot(now)))
            self._out.append(Send(Side.CLIENT, session, status))
        elif client is None:
            self._refuse(Side.CLIENT, session, errors.BadRequest("unknown session: HELLO first"))
        else:
            self._from_client(now, session, client, message)

    def _from_client(
        self, now: float, session: bytes, client: Client, message: protocol.Message
    ) -> None:
        match message:
            case protocol.Ack():
                client.acknowledge(message.read)
            case protocol.Cancel():
                self.scheduler.cancel(client, message.ids)
            case protocol.Notice():
                self._tell_state(client, message.model)
            case protocol.Part():
                self._part(now, Side.CLIENT, client, message)
            case protocol.PartOk():
                client.sender.ok()
                self._dirty[client] = None
            case protocol.Ping():
                pass
            case _:
                self._refuse_malformed(Side.CLIENT, session, "not for a broker")

    def on_worker(self, now: float, session: bytes, frames: Frames) -> None:
        """A message has come from a worker's session."""
        try:
            message = protocol.decode(frames)
        except ProtocolError as error:
            self._refuse_malformed(Side.WORKER, session, str(error))
            return
        worker = self.workers.get(session)
        if isinstance(message, protocol.Hello):
            self._hello_worker(now, session, message)
        elif worker is None:
            self._refuse(Side.WORKER, session, errors.BadRequest("unknown session: HELLO first"))
        else:
            worker.heard = now
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
                self._worker_state(worker, message)
            case protocol.Part():
                self._part(now, Side.WORKER, worker, message)
            case protocol.PartOk():
                worker.sender.ok()
                self._dirty[worker] = None
            case protocol.Ping():
                pass
            case _:
                self._refuse_malformed(Side.WORKER, session, "not for a broker")

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
        """The broker itself stood still; nobody is to be judged by that time."""
        for worker in self.workers.values():
            worker.heard += seconds
            worker.begun_at += seconds
        for client in self.clients.values():
            client.lost_at += seconds

    def give_up_on(self, now: float, side: Side, session: bytes) -> None:
        """A message of this session could not be handled: the fault is here, the others go on."""
        self.counts["failures"] += 1
        error = errors.BadRequest("the broker failed on a message; its log says how")
        self._refuse(side, session, error)
        self.on_gone(now, side, session)

    def sessions(self, side: Side) -> list[bytes]:
        """Return the routing ids of one side, to be probed."""
        return list(self.client_sessions if side is Side.CLIENT else self.workers)

    def drain(self) -> None:
        """Take no new work; what is queued or running goes on."""
        self.admission.draining = True
        for client in self.client_sessions.values():
            self._tell_draining(client)

    @property
    def idle(self) -> bool:
        """Whether every item is answered and every answer read."""
        return not any(c.items or (c.unread and c.session) for c in self.clients.values())

    def snapshot(self, now: float) -> dict[str, object]:
        """Return its state in plain values, as `zstreamer.broker.snapshot` describes them."""
        broker: dict[str, object] = {
            "epoch": self.epoch,
            "uptime": now - self.born,
            "draining": self.draining,
            "clients": len(self.client_sessions),
            "workers": len(self.workers),
        }
        return snapshot.of(self.scheduler, broker, now)

    # What leaves

    def poll(self, now: float) -> list[Send]:
        """Do what is due, hand out work, and return the messages that leave now."""
        if now >= self._next_tick:
            self._tick(now)
        self.scheduler.dispatch(now)
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
        self.on_gone(now, Side.CLIENT, session)
        client = self.clients.get(hello.id)
        resumed = client is not None
        if client is None:
            client = self.clients[hello.id] = Client(hello.id, self.config.max_payload)
        if client.session is not None:
            self.client_sessions.pop(client.session, None)
        waits = hello.info.get("open", [])
        waits_for = {i for i in waits if type(i) is int} if isinstance(waits, list) else set()
        self.scheduler.cancel(client, [id for id in client.items if id not in waits_for])
        known = client.resume(session, waits_for)
        client.info = {**hello.info, "open": None}
        self.client_sessions[session] = client
        self._welcome(client, self.config.window_items, resumed, known)
        if self.draining:
            self._tell_draining(client)

    def _hello_worker(self, now: float, session: bytes, hello: protocol.Hello) -> None:
        if not self._acceptable(Side.WORKER, session, hello, Role.WORKER):
            return
        name, batch, pool = (hello.info.get(key) for key in ("model", "batch_size", "pool"))
        if not (isinstance(name, str) and 0 < len(name) <= protocol.MAX_NAME):
            self._refuse(Side.WORKER, session, errors.BadRequest("bad model name"))
            return
        if (
            type(batch) is not int
            or type(pool) is not int
            or not 1 <= batch <= MAX_BATCH > pool >= 0
        ):
            words = f"batch_size must be 1 to {MAX_BATCH:,}, and pool no more"
            self._refuse(Side.WORKER, session, errors.BadRequest(words))
            return
        for other in [w for w in self.workers.values() if w.id == hello.id]:
            self.on_gone(now, Side.WORKER, other.session)
        self.on_gone(now, Side.WORKER, session)
        model = self.scheduler.model(name)
        model.known = True
        worker = Worker(session, hello.id, model, batch, pool, self.config, hello.info, now)
        self.workers[session] = model.workers[session] = worker
        model.gave_up = False
        model.queue.fit(batch)
        self._welcome(worker, worker.window_items, False, [])

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

    def _welcome(self, peer: Client | Worker, window: int, resumed: bool, known: list[int]) -> None:
        config = self.config
        welcome = protocol.Welcome(
            self.epoch, resumed, known, window, config.window_bytes, config.max_payload
        )
        peer.tell(welcome)
        self._dirty[peer] = None

    def _refuse(self, side: Side, session: bytes, error: ZStreamerError) -> None:
        self.counts["refused"] += 1
        frames = protocol.plain(protocol.Refuse(errors.to_wire(error)))
        self._out.append(Send(side, session, frames))

    def _refuse_malformed(self, side: Side, session: bytes, words: str) -> None:
        self.counts["malformed"] += 1
        self._refuse(side, session, errors.BadRequest(words))

    def _part(self, now: float, side: Side, peer: Client | Worker, message: protocol.Part) -> None:
        session = peer.session or b""
        most = self.config.window_bytes + self.config.max_payload
        if peer.receiver.bytes + len(message.data) > most:
            self._refuse(side, session, errors.TooLarge("parts of more payloads than the window"))
            self.on_gone(now, side, session)
            return
        peer.receiver.part(message.transfer, message.data)
        peer.tell(protocol.PartOk(message.transfer))
        self._dirty[peer] = None

    # Items

    def _submit(self, now: float, client: Client, run: protocol.Run) -> None:
        self._dirty[client] = None
        if self.admission.submit(now, client, run):
            model = self.models[run.model]
            if not model.warm and model.name not in client.noticed:
                self._tell_state(client, model.name)

    # Models' states

    def _worker_state(self, worker: Worker, message: protocol.State) -> None:
        try:
            worker.state = WorkerState(message.state)
        except ValueError:
            words = f"no such state {message.state}"
            self._refuse_malformed(Side.WORKER, worker.session, words)
            return
        model = worker.model
        if worker.state in (WorkerState.RESTARTING, WorkerState.BROKEN):
            model.trouble = message.text
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
        self._tell_all(model)

    def _tell_state(self, client: Client, name: str) -> None:
        """Tell a client whether a model is ready, and again when that changes."""
        full = len(client.noticed) >= MAX_NOTICES or len(name) > protocol.MAX_NAME
        if full and name not in client.noticed:
            return
        model = self.models.get(name)
        words = model.state_in_words() if model else f"no worker serves model {name!r}"
        if words:
            client.noticed.add(name)
        else:
            client.noticed.discard(name)
        error = errors.NoWorker(words, final=model is not None and model.broken)
        client.tell(protocol.Notice(name, errors.to_wire(error) if words else []))
        self._dirty[client] = None

    def _tell_all(self, model: Model) -> None:
        for client in self.client_sessions.values():
            if model.name in client.noticed:
                self._tell_state(client, model.name)
        if model.broken:
            error = errors.NoWorker(model.state_in_words(), final=True)
            self.scheduler.fail_waiting(model, error)

    def _tell_draining(self, client: Client) -> None:
        client.tell(protocol.Notice("", errors.to_wire(admission.draining())))
        self._dirty[client] = None

    # What only time changes

    def _tick(self, now: float) -> None:
        seconds = now - self._next_tick + TICK
        self._next_tick = now + TICK
        for worker in self.workers.values():
            if not worker.stalled and now - worker.heard > STALL:
                worker.stalled = True
                worker.model.look_at(worker)
                self.counts["stalls"] += 1
            if not worker.late and worker.is_late(now):
                worker.late = True
                worker.model.look_at(worker)
                self.counts["late"] += 1
        for client in list(self.clients.values()):
            if client.session is None and now - client.lost_at > self.config.resume_grace:
                self._forget(client)
            elif client.unread > self.config.unread_bytes:
                self._reset(client)
        for model in self.models.values():
            model.measure(seconds, RATE_WEIGHT)
        if now - self.born >= self.config.model_grace:
            for model in [m for m in self.models.values() if not m.known]:
                del self.models[model.name]
                self.scheduler.fail_waiting(model, self.admission.model_not_found(model.name))

    def _forget(self, client: Client) -> None:
        self.scheduler.cancel(client, list(client.items))
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
