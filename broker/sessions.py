"""Who is connected: HELLO and WELCOME, REFUSE, sessions that are lost, and those that are ignored.

A session is one connection of a peer, named by its routing id. A worker's record ends with it; a
client's waits a short grace for the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from zstreamer import errors
from zstreamer.broker import introduction
from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.holds import Holds
from zstreamer.broker.hosts import Host, Hosts
from zstreamer.broker.notices import Notices
from zstreamer.broker.patience import Patience
from zstreamer.broker.scheduler import Scheduler
from zstreamer.broker.tenants import Tenants, name_in
from zstreamer.broker.workers import Worker
from zstreamer.config import BrokerConfig
from zstreamer.errors import ZStreamerError
from zstreamer.keys.ring import MAX_TENANT, Principal, tenant_of
from zstreamer.wire import protocol
from zstreamer.wire.protocol import TRACES, Frames, Hello, Role

OFFER_READ = 200
"""Bytes that an offer of a host counts for besides its own: it takes 7 µs to read."""

MAX_REFUSALS, MAX_WORDS = 100, 200
"""Refusals that are kept until they are logged, and the characters of each."""


class Side(str, Enum):
    """The two ROUTERs; text, since that is hashed ten times as fast as a plain enum's members."""

    CLIENT = "client"
    WORKER = "worker"


class Outgoing(NamedTuple):
    """A message for the driver to send."""

    side: Side
    session: bytes
    frames: Frames


Peer: TypeAlias = ClientRecord | Worker


class Sessions:
    """The sessions of both sides, and what is known of their peers.

    Args:
        config: limits.
        epoch: names this start of the broker.
        scheduler: takes back what a lost worker had, and drops what a client gives up.
        notices: tells clients that a lost worker was a model's last.

    Attributes:
        clients: by id, connected or expected back.
        connected: clients by session.
        workers: by session.
        hosts: of model repositories; sessions of the workers' side without a model.
        tenants: to whom clients belong.
        patience: how much longer the broker listens to the sessions of a side that err.
        holds, banned: names that an operator has drained, and refused.
        out: answers to sessions, which may be unknown; the core sends them.
        refusals: the latest sessions that were refused: which side, who, and why; for the log.
    """

    def __init__(
        self, config: BrokerConfig, epoch: int, scheduler: Scheduler, notices: Notices
    ) -> None:
        self.clients: dict[int, ClientRecord] = {}
        self.connected: dict[bytes, ClientRecord] = {}
        self.workers: dict[bytes, Worker] = {}
        self.tenants = Tenants()
        self.patience = {side: Patience() for side in Side}
        self.holds, self.banned = Holds(), Holds()
        self.out: list[Outgoing] = []
        self.hosts = Hosts(
            lambda session, frames: self.out.append(Outgoing(Side.WORKER, session, frames))
        )
        self.refusals: deque[tuple[Side, str, str]] = deque(maxlen=MAX_REFUSALS)
        self._config = config
        self._epoch = epoch
        self._scheduler = scheduler
        self._notices = notices

    def deaf(self, side: Side) -> dict[bytes, float]:
        """Return the sessions that are not to be heard, as long as they are not."""
        return self.patience[side].deaf

    def of(self, side: Side) -> list[bytes]:
        """Return the routing ids of one side, to be probed."""
        return list(self.connected if side is Side.CLIENT else [*self.workers, *self.hosts.known])

    def knows(self, side: Side, session: bytes) -> bool:
        """Whether a session has said HELLO and is not gone."""
        if side is Side.CLIENT:
            return session in self.connected
        return session in self.workers or session in self.hosts.known

    def largest(self, count: int) -> list[tuple[int, str]]:
        """Return the bytes that the largest sessions hold here, and who they are."""
        clients = [
            (c.held, f"client={c.id} {introduction.words(c.info)}") for c in self.clients.values()
        ]
        workers = [
            (w.held, f"worker={w.id} {introduction.words(w.info)}") for w in self.workers.values()
        ]
        hosts = [
            (h.held, f"host={h.name} {introduction.words(h.info)}")
            for h in self.hosts.known.values()
        ]
        return sorted(clients + workers + hosts, reverse=True)[:count]

    # Come

    def hello_client(
        self,
        now: float,
        session: bytes,
        hello: Hello,
        draining: bool,
        principal: Principal | None = None,
    ) -> ClientRecord | None:
        """Welcome a client, or refuse it and return None."""
        if not self._acceptable(now, Side.CLIENT, session, hello, Role.CLIENT):
            return None
        name = name_in(hello.info)
        if name is None:
            words = f"a tenant's name is printable text of up to {MAX_TENANT} characters"
            self.refuse(now, Side.CLIENT, session, errors.BadRequest(words))
            return None
        tenant = tenant_of(name, principal.tenant if principal is not None else None)
        if tenant is None:
            self.refuse(now, Side.CLIENT, session, errors.Unauthorized(introduction.NO_TENANT))
            return None
        client = self.clients.get(hello.id)
        if client is not None and not introduction.same_key(client.principal, principal):
            self.shut_out(now, Side.CLIENT, session, errors.Unauthorized(introduction.NOT_ITS_ID))
            return None
        self.gone(now, Side.CLIENT, session)
        resumed = client is not None
        if client is None:
            answers = self._scheduler.bundles.answer
            whose = self.tenants.named(tenant, now)
            client = ClientRecord(hello.id, self._config.max_payload, answers, whose)
            self.clients[hello.id] = client
        if client.session is not None:
            self._replace(now, Side.CLIENT, client.session, client.info, hello)
            self.connected.pop(client.session, None)
        waits = hello.info.get("open", [])
        waits_for = {i for i in waits if type(i) is int} if isinstance(waits, list) else set()
        self._scheduler.cancel(client, [id for id in client.items if id not in waits_for])
        known = client.resume(session, waits_for)
        client.info = introduction.kept(hello.info)
        client.principal = principal
        self.connected[session] = client
        if draining:  # it is to know before it sends anything
            self._notices.draining(client)
        extensions = introduction.extensions(hello.info)
        self._welcome(client, self._config.window_items, resumed, known, extensions)
        return client

    def hello_worker(
        self, now: float, session: bytes, hello: Hello, principal: Principal | None = None
    ) -> None:
        """Welcome a worker, or refuse it."""
        if not self._acceptable(now, Side.WORKER, session, hello, Role.WORKER):
            return
        job = introduction.job(hello.info, protocol.MAX_NAME)
        if isinstance(job, str):
            self.refuse(now, Side.WORKER, session, errors.BadRequest(job))
            return
        models = self._scheduler.models
        if job.model not in models and models.full:
            self.refuse(now, Side.WORKER, session, errors.Overloaded("there are too many models"))
            return
        others = [w for w in self.workers.values() if w.id == hello.id]
        if words := introduction.forbidden(job, principal, [w.principal for w in others]):
            self.refuse(now, Side.WORKER, session, errors.Unauthorized(words))
            return
        self._end_older(now, session, hello, others)
        model = self._scheduler.versions.served_by(job.model, job.version)
        model.known = True
        info = introduction.kept(hello.info)
        worker = Worker(session, hello.id, model, job, self._config, info, now)
        worker.drained = self.holds.holds(worker)
        worker.principal = principal
        worker.outbox.traces = TRACES in introduction.extensions(hello.info)
        self.workers[session] = model.workers[session] = worker
        model.forget_speed()
        model.gave_up = False
        model.queue.fit(job.batch_size)
        self._welcome(worker, worker.window_items, False, [], [])

    def hello_host(
        self, now: float, session: bytes, hello: Hello, principal: Principal | None = None
    ) -> None:
        """Welcome a host of a model repository, or refuse it."""
        if not self._acceptable(now, Side.WORKER, session, hello, Role.HOST):
            return
        others = [host for host in self.hosts.known.values() if host.id == hello.id]
        if not all(introduction.same_key(other.principal, principal) for other in others):
            self.refuse(now, Side.WORKER, session, errors.Unauthorized(introduction.NOT_ITS_ID))
            return
        if self.hosts.full and not others:
            words = "there are too many hosts of models"
            self.refuse(now, Side.WORKER, session, errors.Overloaded(words))
            return
        self._end_older(now, session, hello, others)
        info = introduction.kept(hello.info)
        self.hosts.known[session] = Host(session, hello.id, info, principal)
        frames = protocol.plain(self._greeting(0, False, [], []))
        self.out.append(Outgoing(Side.WORKER, session, frames))

    def _end_older(
        self, now: float, session: bytes, hello: Hello, others: Sequence[Worker] | Sequence[Host]
    ) -> None:
        """A worker or host is here anew: its earlier sessions are gone, and what this one was."""
        for other in others:
            if other.session != session:
                self._replace(now, Side.WORKER, other.session, other.info, hello)
            self.gone(now, Side.WORKER, other.session)
        self.gone(now, Side.WORKER, session)

    def _acceptable(self, now: float, side: Side, session: bytes, hello: Hello, role: Role) -> bool:
        if self.knows(side, session) and not self.patience[side].fault(now, session):
            self._go_deaf(now, side, session)
        elif hello.version != protocol.VERSION:
            words = f"this broker speaks version {protocol.VERSION}, its peer {hello.version}"
            self.refuse(now, side, session, errors.VersionMismatch(words))
        elif hello.role != role:
            words = f"this port is for {side.value}s; check that the two ports are not swapped"
            self.refuse(now, side, session, errors.BadRequest(words))
        elif (name := self.banned.of_hello(hello.info)) is not None:
            words = f"an operator of the broker has refused {name!r}"
            self.refuse(now, side, session, errors.Unauthorized(words))
        else:
            return True
        return False

    def _welcome(
        self, peer: Peer, window: int, resumed: bool, known: list[int], extensions: list[str]
    ) -> None:
        peer.tell(self._greeting(window, resumed, known, extensions))
        self._scheduler.dirty[peer] = None

    def _greeting(
        self, window: int, resumed: bool, known: list[int], extensions: list[str]
    ) -> protocol.Welcome:
        config = self._config
        return protocol.Welcome(
            self._epoch, resumed, known, window, config.window_bytes, config.max_payload, extensions
        )

    # Go

    def gone(self, now: float, side: Side, session: bytes) -> None:
        """A session cannot be reached any more: its connection is closed or silent."""
        if side is Side.CLIENT:
            client = self.connected.pop(session, None)
            if client is not None and client.session == session:
                client.disconnect()
                client.lost_at = now
        elif (worker := self.workers.pop(session, None)) is not None:
            self._scheduler.worker_gone(worker)
            self._notices.changed(worker.model, self.clients.values())
        else:
            self.hosts.gone(session)

    def forget(self, client: ClientRecord) -> None:
        """A client is not expected back."""
        self._scheduler.cancel(client, list(client.items))
        client.tenant.clients -= 1
        del self.clients[client.id]

    def reset(self, now: float, client: ClientRecord) -> None:
        """A client does not read what it asked for; it must not cost the others their memory."""
        self._scheduler.counts["resets"] += 1
        session = client.session
        client.disconnect()
        self.forget(client)
        if session is not None:
            self.connected.pop(session, None)
            error = errors.Overloaded("answers were not read; the connection is reset")
            self.refuse(now, Side.CLIENT, session, error)

    def expel(self, now: float, worker: Worker, error: ZStreamerError) -> None:
        """End a worker's session."""
        self.refuse(now, Side.WORKER, worker.session, error)
        self.gone(now, Side.WORKER, worker.session)

    def shut_out(self, now: float, side: Side, session: bytes, error: ZStreamerError) -> None:
        """End a session for good: it is told why, not heard any more, and not to be resumed."""
        client = self.connected.get(session) if side is Side.CLIENT else None
        self.refuse(now, side, session, error)
        self.cut_off(now, side, session)
        if client is not None and client.session is None:
            self.forget(client)

    def give_up_on(self, now: float, side: Side, session: bytes) -> None:
        """A message of this session could not be handled: the fault is here, the others go on."""
        self._scheduler.counts["failures"] += 1
        error = errors.BadRequest("the broker failed on a message; see its log")
        self.refuse(now, side, session, error)
        self.gone(now, side, session)

    def from_host(self, now: float, session: bytes, message: protocol.Message, size: int) -> None:
        """A session without a model has said something, in a message of so many bytes."""
        if session not in self.hosts.known:
            self.refuse_unknown(now, Side.WORKER, session)
        elif not self.patience[Side.WORKER].ask(now, session, size + _reading(message)):
            self.cut_short(now, Side.WORKER, session)
        elif isinstance(message, protocol.Status):
            try:
                self.hosts.told(session, message.info)
            except protocol.ProtocolError as error:
                self.refuse_malformed(now, Side.WORKER, session, str(error))
        elif not isinstance(message, protocol.Ping):
            self.refuse_malformed(now, Side.WORKER, session, "not for a broker")

    # Are refused

    def refuse(
        self, now: float, side: Side, session: bytes, error: ZStreamerError, logged: bool = True
    ) -> None:
        """Say that what a session sent is not taken; one that is refused too often is ignored."""
        self._scheduler.counts["refused"] += 1
        peer = (self.connected if side is Side.CLIENT else self.workers).get(session)
        who = introduction.words(peer.info) if peer is not None else f"session={session.hex()}"
        if logged:
            self.refusals.append((side, who, error.message[:MAX_WORDS]))
        frames = protocol.plain(protocol.Refuse(errors.to_wire(error)))
        self.out.append(Outgoing(side, session, frames))
        if not self.patience[side].fault(now, session):
            self._go_deaf(now, side, session)

    def refuse_malformed(self, now: float, side: Side, session: bytes, words: str) -> None:
        """What a session sent is no message for a broker."""
        self._scheduler.counts["malformed"] += 1
        self.refuse(now, side, session, errors.BadRequest(words))

    def refuse_unknown(self, now: float, side: Side, session: bytes) -> None:
        """A session has not said who it is."""
        self.refuse(now, side, session, errors.BadRequest("unknown session: HELLO first"))

    def _replace(
        self, now: float, side: Side, session: bytes, info: Mapping[str, object], hello: Hello
    ) -> None:
        words = "another connection sent HELLO with the id of this one and replaces it"
        # The same program is nothing to warn of: a worker does it to say more of its model.
        again = introduction.words(info) == introduction.words(hello.info)
        self.refuse(now, side, session, errors.BadRequest(words), logged=not again)

    def cut_short(self, now: float, side: Side, session: bytes) -> None:
        """It sends faster than it can be read, and nothing useful."""
        words = "messages that do no work arrive faster than they can be read"
        self.refuse(now, side, session, errors.Overloaded(words))
        self.cut_off(now, side, session)

    def cut_off(self, now: float, side: Side, session: bytes) -> None:
        """Hear nothing of this session any more: it does what no peer does by mistake."""
        self.patience[side].give_up(now, session)
        self._go_deaf(now, side, session)

    def _go_deaf(self, now: float, side: Side, session: bytes) -> None:
        """It goes on although it was refused again and again: it is ignored from now on."""
        self._scheduler.counts["deaf"] += 1
        self.gone(now, side, session)


def _reading(message: protocol.Message) -> int:
    """Return what a message of a host counts for besides its bytes."""
    found = message.info.get("offers") if isinstance(message, protocol.Status) else None
    return OFFER_READ * len(found) if isinstance(found, list) else 0
