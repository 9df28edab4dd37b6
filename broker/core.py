"""The broker as a state machine: told the time and what arrived, it returns what to send.

    on_client / on_worker   a message has come from a session (a routing id of that side)
    on_gone                 a session cannot be reached any more
    poll                    timers, dispatch; returns the messages that leave now
    wake_at                 when poll must be called again although nothing arrives

No socket, clock, thread, log or random source in here. This file says what each message and each
tick means. Who is connected is in sessions.py, what is admitted in admission.py, what becomes of
items in scheduler.py, what clients are told of models in notices.py, and what only time changes in
timers.py.
"""

from __future__ import annotations

from collections import Counter, deque

from zstreamer import errors
from zstreamer.broker import facts, snapshot, traces
from zstreamer.broker.admission import Admission
from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.facts import Survey
from zstreamer.broker.models import Model
from zstreamer.broker.notices import Notices
from zstreamer.broker.patience import MAX_WORDS, WORDS_AN_ITEM, WORTH_ITS_WORD
from zstreamer.broker.scheduler import Scheduler
from zstreamer.broker.sessions import Outgoing, Peer, Sessions, Side
from zstreamer.broker.timers import Timers
from zstreamer.broker.workers import Worker
from zstreamer.config import BrokerConfig
from zstreamer.keys.ring import Principal
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Frames, ProtocolError, Report, Submit, WorkerState

MAX_FOLLOWED = 10_000
"""Lines on the way of items that wait to be logged, at level debug."""

MAX_TROUBLE = 8 * 1024
"""Characters that are kept of why a model could not start."""

_READY = int(protocol.Flag.READY)


class BrokerCore:
    """One broker's whole state.

    Args:
        config: limits and times.
        epoch: 63 random bits that tell this start of the broker from all others.
        now: monotonic seconds.

    Attributes:
        troubles: what has gone wrong here and cost a peer its session; the driver logs them.
        survey: what workers and this process say of themselves while somebody looks.
    """

    def __init__(self, config: BrokerConfig, epoch: int, now: float) -> None:
        self.config = config
        self.epoch = epoch
        self.born = now
        self.scheduler = Scheduler(config.scale_latency)
        if config.log_level == "debug":
            self.scheduler.bundles.followed = deque(maxlen=MAX_FOLLOWED)
        self.admission = Admission(config, self.scheduler, now)
        self.scheduler.versions.max_payload = config.max_payload
        self._notices = Notices(self.scheduler)
        self.sessions = Sessions(config, epoch, self.scheduler, self._notices)
        self.sessions.hosts.born = now
        self.troubles: list[Exception] = []
        self.survey = Survey()
        self._dirty = self.scheduler.dirty
        self._connected, self._workers = self.sessions.connected, self.sessions.workers
        parts = self.scheduler, self.sessions, self.admission, self._notices
        self._timers = Timers(config, now, *parts)

    @property
    def draining(self) -> bool:
        """Whether it takes no new work."""
        return self.admission.draining

    @property
    def models(self) -> dict[str, Model]:
        """Models by name."""
        return self.scheduler.models

    @property
    def clients(self) -> dict[int, ClientRecord]:
        """Clients by id, connected or expected back."""
        return self.sessions.clients

    @property
    def workers(self) -> dict[bytes, Worker]:
        """Workers by session."""
        return self.sessions.workers

    @property
    def counts(self) -> Counter[str]:
        """What has happened how often."""
        return self.scheduler.counts

    # What arrives

    def on_client(
        self, now: float, session: bytes, frames: Frames, principal: Principal | None = None
    ) -> None:
        """A message has come from a client's session; its HELLO with whose key that has."""
        try:
            message = protocol.decode(frames)
        except ProtocolError as error:
            self.sessions.refuse_malformed(now, Side.CLIENT, session, str(error))
            return
        client = self._connected.get(session)
        if client is not None:
            client.words += 1
            if client.words > MAX_WORDS:
                self.sessions.cut_short(now, Side.CLIENT, session)
                return
        if client is not None and type(message) is Submit:
            self._submit(now, session, client, message)
        elif isinstance(message, protocol.Hello):
            self._hello_client(now, session, message, principal)
        elif isinstance(message, protocol.Status):
            self._tell_status(now, session, message)
        elif client is None:
            self.sessions.refuse_unknown(now, Side.CLIENT, session)
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
                    self._notices.hand_back(client, message.model)
                else:
                    self._notices.tell(client, message.model)
            case protocol.Part():
                self._part(now, Side.CLIENT, client, message)
            case protocol.PartOk():
                client.words -= client.sender.ok()
                self._dirty[client] = None
            case protocol.Ping():
                pass
            case _:
                self.sessions.refuse_malformed(now, Side.CLIENT, session, "not for a broker")

    def on_worker(
        self, now: float, session: bytes, frames: Frames, principal: Principal | None = None
    ) -> None:
        """A message has come from a worker's session; its HELLO with whose key that has."""
        try:
            message = protocol.decode(frames)
        except ProtocolError as error:
            self.sessions.refuse_malformed(now, Side.WORKER, session, str(error))
            return
        worker = self._workers.get(session)
        if isinstance(message, protocol.Hello):
            host = message.role == protocol.Role.HOST
            greet = self.sessions.hello_host if host else self.sessions.hello_worker
            greet(now, session, message, principal)
        elif worker is None:
            self.sessions.from_host(now, session, message, len(frames[0]))
        else:
            worker.heard = now
            worker.words += 1
            if worker.words > MAX_WORDS:
                self.sessions.cut_short(now, Side.WORKER, session)
                return
            if worker.stalled:
                worker.stalled = False
                self.scheduler.touch(worker.model, worker)
            if type(message) is Report:
                self.scheduler.report(now, worker, message)
            else:
                self._from_worker(now, session, worker, message)

    def _from_worker(
        self, now: float, session: bytes, worker: Worker, message: protocol.Message
    ) -> None:
        match message:
            case protocol.State():
                self._worker_state(now, worker, message)
            case protocol.Part():
                worker.moved = now  # so many bytes as its window has
                self._part(now, Side.WORKER, worker, message)
            case protocol.PartOk():
                if worker.outbox.sender.ok():
                    worker.words -= 1
                    worker.moved = now
                self._dirty[worker] = None
            case protocol.Status():
                before, worker.facts = worker.facts, facts.kept(message.info)
                worker.model.tally.batches.told(before, worker.facts)
                worker.told = 0  # it has read the question, and so what came before that
            case protocol.Ping():
                pass
            case _:
                self.sessions.refuse_malformed(now, Side.WORKER, session, "not for a broker")

    def on_gone(self, now: float, side: Side, session: bytes) -> None:
        """A session cannot be reached any more: its connection is closed or silent."""
        self.sessions.gone(now, side, session)

    def on_pause(self, seconds: float) -> None:
        """The broker itself stood still; that time counts against no peer."""
        for worker in self.workers.values():
            worker.heard += seconds
            worker.begun_at += seconds
            worker.moved += seconds
        for client in self.clients.values():
            client.lost_at += seconds

    def drain(self) -> None:
        """Take no new work; what is queued or running goes on."""
        self.admission.draining = True
        for client in self.sessions.connected.values():
            self._notices.draining(client)

    def resume(self) -> None:
        """Take new work again after `drain`."""
        self.admission.draining = False
        for client in self.sessions.connected.values():
            client.tell(protocol.Notice("", []))
            self._dirty[client] = None

    def look_at_holds(self) -> None:
        """The names that an operator has drained have changed."""
        for worker in self.workers.values():
            before = worker.model.state_in_words()
            worker.drained = self.sessions.holds.holds(worker)
            worker.model.forget_speed()
            self.scheduler.touch(worker.model, worker)
            if worker.model.state_in_words() != before:
                self._notices.changed(worker.model, self.clients.values())

    def look_at_versions(self) -> None:
        """Workers or routes may have changed so that other versions are given items now."""
        self._timers.look_at_versions()

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
            "clients": len(self.sessions.connected),
            "workers": len(self.workers),
            "held": list(self.sessions.holds.names),
            "repository": self.sessions.hosts.rows(),
            **self.survey.own,
            **snapshot.sessions(self.sessions.connected.values(), self.config),
        }

    def look(self, now: float) -> None:
        """Somebody looks: have workers say how they are, but not all the time."""
        if self.survey.due(now):
            for worker in self.workers.values():
                worker.tell(protocol.Status({}))
                self._dirty[worker] = None

    # What leaves

    def poll(self, now: float) -> list[Outgoing]:
        """Do what is due, hand out work, and return the messages that leave now."""
        if now >= self._timers.due:
            self._timers.tick(now)
        self.scheduler.dispatch(now)
        out, self.sessions.out = self.sessions.out, []
        if not self._dirty:
            return out
        dirty = list(self._dirty)
        self._dirty.clear()
        for peer in dirty:
            try:
                if isinstance(peer, Worker):
                    if (session := peer.session) in self._workers:
                        for frames in peer.outbox.flush(now):
                            out.append(Outgoing(Side.WORKER, session, frames))
                elif peer.session is not None:
                    for frames in peer.flush():
                        out.append(Outgoing(Side.CLIENT, peer.session, frames))
            except Exception as error:  # noqa: BLE001  # the driver logs it
                self.troubles.append(error)
                self._give_up_sending(now, peer)
        return out

    def _give_up_sending(self, now: float, peer: Peer) -> None:
        """What was for this peer cannot be sent: it alone is to lose by that."""
        if isinstance(peer, Worker):
            self.sessions.give_up_on(now, Side.WORKER, peer.session)
        elif peer.session is not None:
            self.sessions.give_up_on(now, Side.CLIENT, peer.session)
            self.sessions.forget(peer)  # what it would resume could not be sent either

    def wake_at(self) -> float:
        """Return the monotonic seconds at which `poll` must be called at the latest."""
        return min(self._timers.due, self.scheduler.wake_at())

    # What the messages mean

    def _hello_client(
        self, now: float, session: bytes, hello: protocol.Hello, principal: Principal | None
    ) -> None:
        client = self.sessions.hello_client(now, session, hello, self.draining, principal)
        if client is not None:
            self._notices.hello(client)

    def _part(self, now: float, side: Side, peer: Peer, message: protocol.Part) -> None:
        session = peer.session or b""
        most = self.config.window_bytes + self.config.max_payload
        if peer.receiver.bytes + len(message.data) > most:
            error = errors.TooLarge("more bytes of large payloads than the window allows")
            self.sessions.refuse(now, side, session, error)
            self.sessions.gone(now, side, session)
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
        if self.sessions.patience[Side.CLIENT].ask(now, session, len(page[0])):
            self.sessions.out.append(Outgoing(Side.CLIENT, session, page))
        else:
            words = "STATUS is requested faster than its answers are read"
            self.sessions.refuse(now, Side.CLIENT, session, errors.Overloaded(words))

    def _submit(self, now: float, session: bytes, client: ClientRecord, message: Submit) -> None:
        if message.ack > client.acked:
            client.acknowledge(message.ack)
        items = 0
        for run in message.runs:
            items += len(run.ids)
        if items > self.config.window_items:
            words = "more items in one message than the window allows"
            self.sessions.refuse_malformed(now, Side.CLIENT, session, words)
            return
        self.scheduler.bundles.submit.observe(items)
        for run in message.runs:
            taken = self.admission.submit(now, client, run)
            if taken:
                client.words -= 1
            # One that has other brokers hears of a model that was not ready when it is.
            if (taken or run.flags & _READY) and run.model not in client.noticed:
                self._notices.submitted(client, run.model)
        if message.traces:
            traces.attach(client, message.traces)

    def _worker_state(self, now: float, worker: Worker, message: protocol.State) -> None:
        before = worker.model.state_in_words()
        try:
            worker.state = WorkerState(message.state)
        except ValueError:
            words = f"no such state {message.state}"
            self.sessions.refuse_malformed(now, Side.WORKER, worker.session, words)
            return
        worker.moved = now
        model = worker.model
        if worker.state in (WorkerState.RESTARTING, WorkerState.BROKEN):
            worker.failures += 1
            model.tally.failures += 1
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
            self._notices.changed(model, self.sessions.clients.values())
