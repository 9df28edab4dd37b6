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
import time
from collections.abc import Callable
from typing import TypeAlias

import zmq

from zstreamer.broker import memory
from zstreamer.broker.admin import Admin
from zstreamer.broker.core import BrokerCore, Send, Side
from zstreamer.config import BrokerConfig
from zstreamer.system import logs
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import Owner, read_config
from zstreamer.system.signals import StopRequests
from zstreamer.wire import protocol, transport
from zstreamer.wire.protocol import Frames

log = logging.getLogger(__name__)

MESSAGES_A_TURN = 256
"""Messages read from one socket before the other one and the sends have their turn."""

PAUSE = 0.5
"""Seconds between two turns beyond which the broker discounts its own absence."""

OWNER_CHECK = 0.5
"""Seconds between two looks at whether the owner still lives."""

PROBE_PAUSE = 0.05
"""Seconds between two rounds of probes; many peers often go at once."""

Handler: TypeAlias = Callable[[float, bytes, Frames], None]

_PING = protocol.plain(protocol.Ping())


class Server:
    """Sockets and timers around one `BrokerCore`.

    Raises:
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
        self.sockets = {
            Side.WORKER: transport.router(config.worker_endpoint, options),
            Side.CLIENT: transport.router(config.client_endpoint, options),
        }
        self._handlers: dict[Side, Handler] = {
            Side.WORKER: self.core.on_worker,
            Side.CLIENT: self.core.on_client,
        }
        self._monitors = {
            side: socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            for side, socket in self.sockets.items()
        }
        for socket in (*self.sockets.values(), *self._monitors.values()):
            self.poller.register(socket, zmq.POLLIN)
        if owner is not None:
            self.poller.register(owner, zmq.POLLIN)

    def turn(self) -> None:
        """Wait for something to do, and do it."""
        wait = min(self.core.wake_at(), *self._probe_at.values(), math.inf) - time.monotonic()
        ready = dict(self.poller.poll(max(0, math.ceil(wait * 1000))))
        now = time.monotonic()
        if now - self._turn_at > PAUSE:
            self.core.on_pause(now - self._turn_at)
        self._turn_at = now
        for side, handle in self._handlers.items():
            if self.sockets[side] in ready:
                self._read(now, side, handle)
            if self._monitors[side] in ready or side in self._probe_at:
                self._look_for_the_gone(now, side)
        while sends := self.core.poll(now):
            for send in sends:
                self._send(now, send)

    def _read(self, now: float, side: Side, handle: Handler) -> None:
        socket = self.sockets[side]
        for _ in range(MESSAGES_A_TURN):
            message = transport.receive_routed(socket)
            if message is None:
                return
            try:
                handle(now, *message)
            except Exception:
                # One peer's message must not be the end of all the others' work.
                log.exception("a message could not be handled side=%s", side.value)
                self.core.give_up_on(now, side, message[0])

    def _send(self, now: float, send: Send) -> None:
        if not transport.send(self.sockets[send.side], [send.session, *send.frames]):
            self.core.on_gone(now, send.side, send.session)

    def _look_for_the_gone(self, now: float, side: Side) -> None:
        """A ROUTER's monitor says that a peer has gone, not which: probe them all, once a while."""
        while transport.monitored(self._monitors[side]):
            self._probe_at.setdefault(side, now + PROBE_PAUSE)
        if self._probe_at.get(side, math.inf) <= now:
            for session in self.core.sessions(side):
                self._send(now, Send(side, session, _PING))
            del self._probe_at[side]

    def owner_gone(self) -> bool:
        """Whether the process that started this one is gone; looks twice a second."""
        if self._owner is None or self._turn_at < self._check_owner_at:
            return False
        self._check_owner_at = self._turn_at + OWNER_CHECK
        return self._owner.gone()

    def close(self) -> None:
        """Close all sockets; answers on their way get a second."""
        for side, socket in self.sockets.items():
            socket.disable_monitor()
            self._monitors[side].close(linger=0)
            socket.close(linger=1000)


def run(config: BrokerConfig, owner: Owner | None = None) -> int:
    """Serve until SIGINT or SIGTERM, then drain; return the process's exit code.

    The first signal refuses new work and waits up to ``drain_grace`` seconds for what runs,
    the second ends at once. Where ``owner`` is given, its death ends the broker at once.
    """
    try:
        server = Server(config, owner)
    except zmq.ZMQError as error:
        log.error(  # noqa: TRY400  # a traceback would hide the one line that matters
            "cannot bind clients=%s workers=%s: %s; is another broker running there?",
            config.client_endpoint,
            config.worker_endpoint,
            error,
        )
        return ExitCode.UNREACHABLE
    memory.keep_free_blocks()
    gc.freeze()
    with StopRequests() as stop, Admin(config, server.core) as admin:
        log.info(
            "serving clients=%s workers=%s http=%s",
            config.client_endpoint,
            config.worker_endpoint,
            admin.port or "none",
        )
        server.poller.register(stop, zmq.POLLIN)
        try:
            return _serve(server, stop, admin)
        finally:
            server.close()


def _serve(server: Server, stop: StopRequests, admin: Admin) -> int:
    while not stop.requests:
        server.turn()
        admin.publish(time.monotonic())
        if server.owner_gone():
            return ExitCode.OK
    log.info("draining grace=%gs", server.config.drain_grace)
    server.core.drain()
    end = time.monotonic() + server.config.drain_grace
    while not server.core.idle:
        server.turn()
        if stop.requests > 1 or time.monotonic() > end or server.owner_gone():
            log.warning("stopped with work unfinished items=%d", server.core.scheduler.queued_items)
            return ExitCode.NOT_DRAINED
    return ExitCode.OK


def main() -> int:
    """Run the broker that another program of ours started."""
    config, owner = read_config(BrokerConfig)
    logs.start(config.log_level)
    return run(config, owner)
