"""The agent's process: sockets, the model's process, and the core that decides.

Never imports torch, nor anything of the user's: the model lives in the child.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import random
import secrets
import socket as sockets
import sys
import time
from typing import TYPE_CHECKING

import zmq

import zstreamer
from zstreamer.config import AgentConfig
from zstreamer.keys import credentials
from zstreamer.keys.ring import Role
from zstreamer.setting import ConfigError
from zstreamer.system import cpus, logs, resources
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import OWNER_CHECK, Owner, read_config
from zstreamer.system.signals import StopRequests
from zstreamer.wire import lookup, transport
from zstreamer.wire.connections import Connections
from zstreamer.worker import actions, pipe
from zstreamer.worker.core import ChildState, WorkerCore
from zstreamer.worker.journal import Journal
from zstreamer.worker.model_process import ModelProcess

if TYPE_CHECKING:
    from zstreamer.worker.metrics import WorkerPages

log = logging.getLogger("zstreamer.worker.agent")  # run as __main__

PAUSE = 1.0
"""Seconds that a turn may take longer than it should; more, and the process stood still."""

LEAVE = 1.5
"""Seconds that an idle model's process gets to end by itself."""

LINGER = 2.0
"""Seconds that the last reports get to leave when the agent exits."""


class Agent:
    """Sockets, timers and the child around one `WorkerCore`."""

    def __init__(self, config: AgentConfig, owner: Owner, stop: StopRequests) -> None:
        info = {
            "host": sockets.gethostname(),
            "pid": os.getpid(),
            "number": config.number,
            "device": config.device,
            "release": zstreamer.__version__,
        }
        self.config = config
        self.core = WorkerCore(
            config, secrets.randbits(63), time.monotonic(), random.random, info, self._measure
        )
        self.exit: actions.Exit | None = None
        options = transport.Options(config.heartbeat, config.heartbeat_timeout)
        self._child: ModelProcess | None = None
        self._killed = ""
        self._journal = Journal(self.core)
        self._pages = self._serve_pages() if config.metrics_port else None
        self._owner = owner
        self._stop = stop
        self._poller = poller = zmq.Poller()
        self._connections = Connections(
            self.core,
            options,
            watch=lambda each: each.register(poller),
            unwatch=lambda each: each.unregister(poller),
            linger=LINGER,
            credentials=credentials.given(config.keys or "", Role.WORKER),
        )
        self._lookup = lookup.started(config.broker, lookup.WORKERS)
        self._poller.register(owner, zmq.POLLIN)
        self._poller.register(stop, zmq.POLLIN)

    def run(self) -> int:
        """Serve until told to stop; return the process's exit code."""
        stops = 0
        while self.exit is None:
            self._turn()
            if self._owner.gone():
                log.warning("owner gone")
                break
            if self._stop.requests > stops:
                stops += 1
                if stops > 1:
                    break
                log.info(logs.event("draining", items=len(self.core.backlog.jobs)))
                self.core.drain()
                self._act_on_core(time.monotonic())  # the brokers hear of it at once
        return self._finish()

    def _turn(self) -> None:
        begun = time.monotonic()
        wait = max(0.0, min(self.core.wake_at() - begun, OWNER_CHECK))
        if self._child is not None:
            events = zmq.POLLIN | (zmq.POLLOUT if self._child.blocked else 0)
            self._poller.register(self._child, events)
        ready = {socket for socket, _ in self._poller.poll(math.ceil(wait * 1000))}
        now = time.monotonic()
        if now - begun - wait > PAUSE:
            self.core.on_pause(now - begun - wait)
        if self._lookup is not None and (found := self._lookup.news(now)):
            self.core.on_addresses(now, *found)
        self._connections.read(now, lambda each: each.socket in ready or each.monitor in ready)
        self._read_child(now)
        self._act_on_core(now)
        self._journal.tell(now)
        if self._pages is not None:
            self._pages.turned(now, time.monotonic())

    def _act_on_core(self, now: float) -> None:
        while todo := self.core.poll(now):
            for action in todo:
                self._act(now, action)
            if self._child is not None:  # now, so that it wakes while this looks once more
                self._child.flush()

    def _read_child(self, now: float) -> None:
        child = self._child
        if child is None:
            return
        child.flush()
        for message in child.read():
            if isinstance(message, pipe.Done):
                self._journal.failures(now, message)
            elif isinstance(message, pipe.Failed) and self.core.child is ChildState.WARM:
                last = message.text.rstrip().rpartition("\n")[2]
                self._killed = f"was broken: {last:.500}"
            self.core.on_child(now, message)
        if child.ended:
            self._poller.unregister(child)
            self._child = None
            how = child.reap()
            log.warning(logs.event("model process ended", child=child.pid, how=self._killed or how))
            self.core.on_child_gone(now, self._killed or how)
            self._killed = ""

    def _act(self, now: float, action: actions.Action) -> None:
        match action:
            case actions.Tell(message):
                if self._child is not None:
                    self._child.tell(message)
            case actions.StartChild():
                self._start_child(now)
            case actions.KillChild(why):
                self._killed = why
                if self._child is not None:
                    self._child.kill()
            case actions.Exit():
                self.exit = action
            case _:
                self._connections.act(now, action)

    def _start_child(self, now: float) -> None:
        config = self.config
        try:
            self._child = ModelProcess(config)
        except OSError as error:
            log.error("cannot start the model's process: %s", error)  # noqa: TRY400
            self.core.on_child_gone(now, f"could not be started: {error}")
            return
        log.info(
            logs.event("model process started", child=self._child.pid, device=config.device or "-")
        )

    def _measure(self) -> dict[str, object]:
        """What a broker is told of these processes when somebody looks."""
        child = self._child.pid if self._child is not None else 0
        return {**resources.of_process(), **resources.of_model(child)}

    def _serve_pages(self) -> WorkerPages | None:
        config = self.config
        from zstreamer.worker.metrics import WorkerPages

        try:
            pages = WorkerPages(config, self.core)
        except OSError as error:
            log.error(  # noqa: TRY400  # the cause is one line
                "no HTTP port address=%s:%d: %s; choose another with --metrics-port, or 0",
                config.metrics_host,
                config.metrics_port + config.number,
                error,
            )
            return None
        log.info(logs.event("serving pages", address=f"{config.metrics_host}:{pages.port}"))
        return pages

    def _finish(self) -> int:
        self._journal.close()
        if self._pages is not None:
            self._pages.close()
        if self._child is not None:
            if self.exit is not None:  # it is idle
                self._child.leave(LEAVE)
            self._child.kill()
            self._child.reap()
        self._connections.close()
        transport.context().term()  # returns once the last reports are out, or after LINGER
        if self.exit is None:
            log.warning(
                logs.event("stopped with work unfinished", items=len(self.core.backlog.jobs))
            )
            return ExitCode.NOT_DRAINED
        if self.exit.broken:
            sys.stderr.write(self.exit.text.rstrip() + "\n")
            return ExitCode.MODEL
        log.info("drained and stopped")
        return ExitCode.OK


def main() -> int:
    """Run the agent that `Process` started."""
    config, owner = read_config(AgentConfig)
    cpus.give_way()
    logs.start(config.log_level, config.log_format)
    gc.freeze()
    with StopRequests() as stop:
        try:
            agent = Agent(config, owner, stop)
        except ConfigError as error:
            log.error("cannot use the key: %s", error)  # noqa: TRY400  # the reason is in the line
            return ExitCode.USAGE
        return agent.run()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
