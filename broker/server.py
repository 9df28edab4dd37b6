"""The broker's process: two ROUTERs, one loop, and the core that decides.

    wait ─> read workers ─> read clients ─> core.poll ─> send ─> wait …

All that has arrived is read before anything is sent, so that what is ready in one turn leaves
as one message a peer, and before anyone is judged to be silent.
"""

from __future__ import annotations

import gc
import logging
import math
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import zmq

from zstreamer.broker import descriptors, memory, revocation, routes_file
from zstreamer.broker.admin import Admin
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.disconnects import EVENTS, Disconnects
from zstreamer.broker.gate import DOMAINS, Gate
from zstreamer.broker.journal import Journal
from zstreamer.broker.rotation import Rotation
from zstreamer.broker.routes import Route
from zstreamer.broker.sessions import Outgoing, Side
from zstreamer.broker.terms import TermsFile
from zstreamer.broker.watched import Watched
from zstreamer.config import BrokerConfig
from zstreamer.histogram import TURNS, Histogram
from zstreamer.keys.ring import Principal
from zstreamer.setting import ConfigError
from zstreamer.system import logs, resources
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.logs import Sparing
from zstreamer.system.process import FOLDER_FLAG, OWNER_CHECK, Owner, read_config
from zstreamer.system.signals import StopRequests
from zstreamer.wire import heads, protocol, transport
from zstreamer.wire.address_file import AddressFile
from zstreamer.wire.protocol import Frames

log = logging.getLogger(__name__)

MESSAGES_A_TURN = 256
SECONDS_A_TURN = 0.02
"""What is read from one socket before the other one and the sends have their turn."""

LOOKS = 3
"""Messages of a turn after each of which the broker asks whether there is another one. That costs
1.5 µs; with more, one is read until there is none, and that exception costs 4.4 µs."""

PAUSE = 0.5
"""Seconds between two turns beyond which the broker discounts its own absence."""

DRAIN_NOTICE = 0.25
"""Seconds for which a broker that drains stays although it is idle: what clients had sent before
they read that it drains is refused, so that it goes elsewhere, rather than lost."""

LOG_EVERY = 10.0
"""Seconds between two lines on faults of one kind."""

PROBE_PAUSE = 0.05
"""Seconds between two rounds of probes; many peers often go at once."""

Handler: TypeAlias = Callable[[float, bytes, Frames, Principal | None], None]

_PING = protocol.plain(protocol.Ping())


class Server:
    """Sockets and timers around one `BrokerCore`.

    Raises:
        ConfigError: the keys cannot be used.
        zmq.ZMQError: an address cannot be bound.
    """

    def __init__(self, config: BrokerConfig, owner: Owner | None = None) -> None:
        options = transport.Options(config.heartbeat, config.heartbeat_timeout)
        self.config = config
        self.core = BrokerCore(config, secrets.randbits(63), time.monotonic())
        self.poller = zmq.Poller()
        self._owner = owner
        self._check_owner_at = 0.0
        self._turn_at = time.monotonic()
        self._probe_at: dict[Side, float] = {}
        self.gate = Gate(config.keys) if config.keys else None  # before anybody can come
        pair = self.gate.lists.pair if self.gate else None
        self._endpoints = {
            Side.WORKER: config.worker_endpoint,
            Side.CLIENT: config.client_endpoint,
        }
        self.sockets = {
            side: transport.router(endpoint, options, pair, DOMAINS[side])
            for side, endpoint in self._endpoints.items()
        }
        self._rotation = Rotation(self.sockets, self._endpoints)
        self._inboxes = {
            side: transport.Inbox(socket, self.core.sessions.deaf(side))
            for side, socket in self.sockets.items()
        }
        self._handlers: dict[Side, Handler] = {
            Side.WORKER: self.core.on_worker,
            Side.CLIENT: self.core.on_client,
        }
        self._monitors = {
            side: socket.get_monitor_socket(EVENTS) for side, socket in self.sockets.items()
        }
        # Of the monitors the descriptors: libzmq asks all of them at once, and sockets one by one.
        # They tell edges only: of what comes once a monitor was found empty.
        self._ports = [
            (side, socket, int(self._monitors[side].getsockopt(zmq.FD)))
            for side, socket in self.sockets.items()
        ]
        self._disconnects = Disconnects(self.core.sessions, self.sockets, self._inboxes)
        self._sparing = Sparing(LOG_EVERY)
        if self.gate is not None:
            self.poller.register(self.gate.socket, zmq.POLLIN)
        self.turns = Histogram(TURNS)
        for _, socket, monitor in self._ports:
            self.poller.register(socket, zmq.POLLIN)
            self.poller.register(monitor, zmq.POLLIN)
        if owner is not None:
            self.poller.register(owner.fileno(), zmq.POLLIN)
        for side in self.sockets:
            self._look_for_the_gone(self._turn_at, side)

    def turn(self) -> None:
        """Wait for something to do, and do it."""
        wake_at = min(self.core.wake_at(), self._rotation.wake_at, *self._probe_at.values())
        wait = wake_at - time.monotonic()
        ready = dict(self.poller.poll(max(0, math.ceil(wait * 1000))))
        now = time.monotonic()
        if now - self._turn_at > PAUSE:
            self.core.on_pause(now - self._turn_at)
        self._turn_at = now
        if self.gate is not None:
            self._mind(now, self.gate, asked=self.gate.socket in ready)
        for side, socket, monitor in self._ports:
            if socket in ready:
                self._read(now, side)
            if monitor in ready or side in self._probe_at:
                self._look_for_the_gone(now, side)
        while sends := self.core.poll(now):
            for send in sends:
                self._send(now, send)
        while self.core.troubles:
            self._report(now, "messages for a peer could not be made", self.core.troubles.pop())
        self.turns.observe(time.monotonic() - now)

    def _read(self, now: float, side: Side) -> None:
        inbox = self._inboxes[side]
        end = time.monotonic() + SECONDS_A_TURN
        left, looks = MESSAGES_A_TURN, LOOKS
        while left and (message := inbox.receive()):
            session, frames = message
            if frames:
                left -= 1
                self._hear(now, side, session, frames)
                if inbox.skipping:  # far more frames than any message may have
                    self.core.sessions.cut_off(now, side, session)
            else:
                self._disconnects.cut(now, side, session)
            if looks:
                looks -= 1
                if not inbox.waiting():
                    return
            if time.monotonic() > end:
                return

    def _mind(self, now: float, gate: Gate, *, asked: bool) -> None:
        """Let in who may come, and end the connections of those who may not any more."""
        if asked:
            gate.answer(now)
        if self._rotation.wake_at <= now:
            self._rotation.look(now)
        if (change := gate.changes()) is not None:
            ended = revocation.revoke(self.core.sessions, now, change.gone, change.changed)
            self._disconnects.revoke(now, ended)
            log.info(
                "keys known=%d revoked=%d changed=%d sessions ended=%d",
                len(gate.lists.ring),
                len(change.gone),
                len(change.changed),
                len(ended),
            )
            if change.pair is not None:
                self._rotation.begin(now, change.pair)
                log.info("the broker's key is now %s", change.pair.public.decode())
        self._disconnects.end_revoked(now)

    def _hear(self, now: float, side: Side, session: bytes, frames: Frames) -> None:
        greets = heads.may_be_hello(frames[0][:2])  # type: ignore[index]  # heads are bytes
        principal = None
        if self.gate is not None and (greets or not self.core.sessions.knows(side, session)):
            principal = self.gate.who(side, self._inboxes[side].user)
            if principal is None:  # revoked since its handshake: not even looked at
                self._disconnects.end(now, side, session)
                return
        if greets:
            self._disconnects.greeted(side, session)
        try:
            self._handlers[side](now, session, frames, principal)
        except Exception as error:  # noqa: BLE001  # it is logged, with its traceback
            # One peer's message must not be the end of all the others' work.
            self._report(now, f"a message could not be handled side={side.value}", error)
            self.core.sessions.give_up_on(now, side, session)

    def _send(self, now: float, send: Outgoing) -> None:
        try:
            if transport.send(self.sockets[send.side], [send.session, *send.frames]):
                return
        except (zmq.ZMQError, TypeError, ValueError) as error:
            self._report(now, f"a message could not be sent side={send.side.value}", error)
        self.core.on_gone(now, send.side, send.session)

    def _report(self, now: float, words: str, error: Exception) -> None:
        """Log a fault of this program, with its traceback, but not each time."""
        if count := self._sparing.admit(now, words):
            log.error("%s times=%d", words, count, exc_info=error)

    def _look_for_the_gone(self, now: float, side: Side) -> None:
        """A ROUTER's monitor says that a peer has gone, but not which one: probe them all."""
        while event := transport.event(self._monitors[side]):
            if self._disconnects.told(now, side, event):
                self._probe_at.setdefault(side, now + PROBE_PAUSE)
        if self._probe_at.get(side, math.inf) <= now:
            for session in self.core.sessions.of(side):
                self._send(now, Outgoing(side, session, _PING))
            del self._probe_at[side]

    def owner_gone(self) -> bool:
        """Whether the process that started this one is gone; looks twice a second."""
        if self._owner is None or self._turn_at < self._check_owner_at:
            return False
        self._check_owner_at = self._turn_at + OWNER_CHECK
        return self._owner.gone()

    def announced(self) -> AbstractContextManager[object]:
        """Have the address file there for as long as the block lasts, where there is to be one.

        Raises:
            ConfigError: it cannot be written.
        """
        if self.config.address_file is None:
            return nullcontext()
        clients, workers = (
            self.sockets[side].getsockopt_string(zmq.LAST_ENDPOINT)
            for side in (Side.CLIENT, Side.WORKER)
        )
        file = AddressFile(self.config.address_file, clients, workers, self.config.advertise)
        log.info("announcing clients=%s workers=%s", file.clients, file.workers)
        return file

    def close(self) -> None:
        """Close all sockets; answers on their way get a second."""
        for side, socket in self.sockets.items():
            socket.disable_monitor()
            self._monitors[side].close(linger=0)
            socket.close(linger=1000)
        if self.gate is not None:
            self.gate.close()


def run(config: BrokerConfig, owner: Owner | None = None) -> int:
    """Serve until SIGINT or SIGTERM, then drain; return the process's exit code.

    The first signal refuses new work and waits up to ``drain_grace`` seconds for what runs,
    the second ends at once. Where ``owner`` is given, its death ends the broker at once.
    """
    descriptors.allow_all()
    limit = memory.limit(config.max_memory, config.max_bytes)
    # A full queue must lead to refusals, not to the end of the broker.
    config = replace(config, max_bytes=min(config.max_bytes, limit // 2))
    try:
        terms = TermsFile(Path(config.tenants)) if config.tenants else None
        routes = routes_file.watched(Path(config.routes)) if config.routes else None
        server = Server(config, owner)
    except ConfigError as error:
        log.error("cannot start: %s", error)  # noqa: TRY400  # as below
        return ExitCode.USAGE
    except zmq.ZMQError as error:
        log.error(  # noqa: TRY400  # a traceback would hide the one line that matters
            "cannot bind clients=%s workers=%s: %s; is another broker running there?",
            config.client_endpoint,
            config.worker_endpoint,
            error,
        )
        return ExitCode.UNREACHABLE
    server.core.survey.measure = partial(_own_facts, limit)
    memory.keep_free_blocks()
    gc.freeze()
    gate = server.gate
    callers = (lambda: gate.lists.callers) if gate else None
    with StopRequests() as stop, Admin(config, server.core, server.turns, callers) as admin:
        line = logs.event(
            "serving",
            clients=config.client_endpoint,
            workers=config.worker_endpoint,
            http=admin.port or "none",
            keys=len(gate.lists.ring) if gate else "none",
            max_memory=f"{limit // 2**20}MiB",
            max_bytes=f"{config.max_bytes // 2**20}MiB",
        )
        log.info(line)
        server.poller.register(stop.fileno(), zmq.POLLIN)
        journal = Journal(server.core)
        if terms is not None:
            server.core.sessions.tenants.agree(terms.terms, time.monotonic())
        if routes is not None:
            server.core.scheduler.versions.agree(routes.value)
        try:
            return _serve(server, stop, admin, memory.Guard(limit), journal, terms, routes)
        finally:
            journal.close()
            server.close()


def _serve(
    server: Server,
    stop: StopRequests,
    admin: Admin,
    guard: memory.Guard,
    journal: Journal,
    terms: TermsFile | None,
    routes: Watched[dict[str, Route]] | None,
) -> int:
    with server.announced():  # until it drains, so that nobody new comes
        while not stop.requests:
            server.turn()
            now = time.monotonic()
            journal.look(now)
            admin.publish(now)
            if terms is not None and terms.changed(now):
                server.core.sessions.tenants.agree(terms.terms, now)
                log.info(logs.event("tenants changed", tables=len(terms.terms)))
            if routes is not None and routes.changed(now):
                server.core.scheduler.versions.agree(routes.value)
                log.info(logs.event("routes changed", tables=len(routes.value)))
            if used := guard.exceeded(now):
                _log_memory(server, used, guard.limit)
                return ExitCode.MEMORY
            if server.owner_gone():
                return ExitCode.OK
    log.info(logs.event("draining", grace=f"{server.config.drain_grace:g}s"))
    server.core.drain()
    start = time.monotonic()
    end = start + server.config.drain_grace
    told = start + DRAIN_NOTICE if server.core.sessions.connected else start
    while not server.core.idle or time.monotonic() < told:
        server.turn()
        journal.look(time.monotonic())
        if stop.requests > 1 or time.monotonic() > end or server.owner_gone():
            items = server.core.scheduler.queued_items
            log.warning(logs.event("stopped with work unfinished", items=items))
            return ExitCode.NOT_DRAINED
    log.info("drained and stopped")
    return ExitCode.OK


def _own_facts(limit: int) -> dict[str, object]:
    """What the snapshot says of this process; its memory is bounded by itself."""
    return {**resources.of_process(), "memory": memory.in_use(), "memory_limit": limit}


def _log_memory(server: Server, used: int, limit: int) -> None:
    log.critical(
        "ending: %d MiB of memory are in use, and max_memory is %d MiB; the sessions that hold "
        "most follow, but a message that is not at its end is not counted",
        used // 2**20,
        limit // 2**20,
    )
    for size, who in server.core.sessions.largest(5):
        log.critical("holds bytes=%d %s", size, who)


def main() -> int:
    """Run the broker that another program of ours started."""
    try:
        config, owner = read_config(BrokerConfig)
        logs.start(config.log_level, config.log_format)
        return run(config, owner)
    finally:
        if FOLDER_FLAG in sys.argv:  # the owner may have been killed
            shutil.rmtree(sys.argv[sys.argv.index(FOLDER_FLAG) + 1], ignore_errors=True)
