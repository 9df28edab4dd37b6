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

import zmq

from zstreamer.config import AgentConfig
from zstreamer.system import cpus, logs
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import Owner, read_config
from zstreamer.system.signals import StopRequests
from zstreamer.wire import transport
from zstreamer.worker import actions, pipe
from zstreamer.worker.core import WorkerCore
from zstreamer.worker.journal import Journal
from zstreamer.worker.link import WorkerLink
from zstreamer.worker.model_process import ModelProcess

log = logging.getLogger("zstreamer.worker.agent")  # run as __main__

OWNER_CHECK = 0.5
"""Seconds between two looks at whether the owner still lives."""

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
        }
        self.config = config
        self.core = WorkerCore(config, secrets.randbits(63), time.monotonic(), random.random, info)
        self.exit: actions.Exit | None = None
        self._options = transport.Options(config.heartbeat, config.heartbeat_timeout)
        self._connections: dict[WorkerLink, transport.Connection] = {}
        self._child: ModelProcess | None = None
        self._killed = ""
        self._journal = Journal(self.core)
        self._owner = owner
        self._stop = stop
        self._poller = zmq.Poller()
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
                log.info("draining items=%d", len(self.core.backlog.jobs))
                self.core.drain()
                self._act_on_core(time.monotonic())  # the brokers hear of it at once
        return self._finish()

    def _turn(self) -> None:
        wait = min(self.core.wake_at() - time.monotonic(), OWNER_CHECK)
        if self._child is not None:
            events = zmq.POLLIN | (zmq.POLLOUT if self._child.blocked else 0)
            self._poller.register(self._child, events)
        ready = {socket for socket, _ in self._poller.poll(max(0, math.ceil(wait * 1000)))}
        now = time.monotonic()
        for link, connection in list(self._connections.items()):
            # The events that a connection has ended with are read after its last messages.
            if connection.socket in ready or connection.monitor in ready:
                self._read(now, link, connection)
        self._read_child(now)
        self._act_on_core(now)
        self._journal.tell(now)

    def _act_on_core(self, now: float) -> None:
        while todo := self.core.poll(now):
            for action in todo:
                self._act(now, action)
            if self._child is not None:  # now, so that it wakes while this looks once more
                self._child.flush()

    def _read(self, now: float, link: WorkerLink, connection: transport.Connection) -> None:
        for frames in connection.receive():
            self.core.on_message(now, link, frames)
        for event in connection.events():
            self._event(now, link, event)

    def _event(self, now: float, link: WorkerLink, event: transport.Event) -> None:
        if event is transport.Event.UP:
            self.core.on_connected(now, link)
        elif link in self._connections:
            self._close(link)
            self.core.on_lost(now, link)

    def _read_child(self, now: float) -> None:
        child = self._child
        if child is None:
            return
        child.flush()
        for message in child.read():
            if isinstance(message, pipe.Done):
                self._journal.failures(now, message)
            self.core.on_child(now, message)
        if child.ended:
            self._poller.unregister(child)
            self._child = None
            how = child.reap()
            log.warning("model process ended pid=%d how=%r", child.pid, self._killed or how)
            self.core.on_child_gone(now, self._killed or how)
            self._killed = ""

    def _act(self, now: float, action: actions.Action) -> None:  # noqa: C901  # a case an action
        match action:
            case actions.Send(link, frames):
                connection = self._connections.get(link)
                if connection is not None and not connection.send(frames):
                    self._close(link)
                    self.core.on_lost(now, link)
            case actions.Tell(message):
                if self._child is not None:
                    self._child.tell(message)
            case actions.Connect(link):
                self._connect(now, link)
            case actions.Close(link):
                self._close(link)
            case actions.StartChild():
                self._start_child(now)
            case actions.KillChild(why):
                self._killed = why
                if self._child is not None:
                    self._child.kill()
            case actions.Exit():
                self.exit = action

    def _connect(self, now: float, link: WorkerLink) -> None:
        try:
            connection = transport.Connection(link.address, self._options, LINGER)
        except zmq.ZMQError as error:
            log.error("bad broker address=%s: %s", link.address, error)  # noqa: TRY400
            self.core.on_lost(now, link)
            return
        self._connections[link] = connection
        self._poller.register(connection.socket, zmq.POLLIN)
        self._poller.register(connection.monitor, zmq.POLLIN)

    def _close(self, link: WorkerLink) -> None:
        connection = self._connections.pop(link, None)
        if connection is not None:
            self._poller.unregister(connection.socket)
            self._poller.unregister(connection.monitor)
            connection.close()

    def _start_child(self, now: float) -> None:
        config = self.config
        try:
            self._child = ModelProcess(config)
        except OSError as error:
            log.error("cannot start the model's process: %s", error)  # noqa: TRY400
            self.core.on_child_gone(now, f"could not be started: {error}")
            return
        log.info("model process started pid=%d device=%s", self._child.pid, config.device or "-")

    def _finish(self) -> int:
        self._journal.close()
        if self._child is not None:
            self._child.kill()
            self._child.reap()
        for link in list(self._connections):
            self._close(link)
        transport.context().term()  # returns once the last reports are out, or after LINGER
        if self.exit is None:
            log.warning("stopped with work unfinished items=%d", len(self.core.backlog.jobs))
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
    logs.start(config.log_level)
    gc.freeze()
    with StopRequests() as stop:
        return Agent(config, owner, stop).run()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
