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
import signal
import socket as sockets
import subprocess
import sys
import time
from collections import deque
from operator import attrgetter

import zmq

from zstreamer import cpus, logs, transport
from zstreamer.config import AgentConfig
from zstreamer.exitcodes import ExitCode
from zstreamer.interpreter import environment, module_command
from zstreamer.process import Owner, read_config
from zstreamer.signals import StopRequests
from zstreamer.worker import actions, forkserver, pipe
from zstreamer.worker.claims import Claims
from zstreamer.worker.core import ChildState, WorkerCore
from zstreamer.worker.journal import Journal
from zstreamer.worker.link import WorkerLink
from zstreamer.worker.target import Description

log = logging.getLogger("zstreamer.worker.agent")  # run as __main__

OWNER_CHECK = 0.5
"""Seconds between two looks at whether the owner still lives."""

READ = 1024 * 1024
"""Bytes read from the child at once."""

LINGER = 2.0
"""Seconds that the last reports get to leave when the agent exits."""


class ChildProcess:
    """The model's process and the channel to it; writes never block."""

    def __init__(self, config: AgentConfig) -> None:
        self.channel, theirs = sockets.socketpair()
        self._claims = Claims()
        self._process: subprocess.Popen[bytes] | None = None
        with theirs:
            if config.fork_address:
                self.pid = forkserver.ask(config.fork_address, theirs, self._claims.fd)
            else:
                self._process = _spawn(theirs.fileno(), self._claims.fd, config.device)
                self.pid = self._process.pid
        self.channel.setblocking(False)
        self._stream = pipe.Stream()
        self._unsent: deque[memoryview] = deque()
        self._plans: dict[int, list[int]] = {}
        self.ended = False
        description = _describe(config)
        self.write(len(description).to_bytes(8, "big") + description)

    def fileno(self) -> int:
        """The channel's descriptor, for a poll loop."""
        return self.channel.fileno()

    @property
    def blocked(self) -> bool:
        """Whether something waits for the child to read."""
        return bool(self._unsent)

    def write(self, data: bytes) -> None:
        """Queue bytes for the next `flush`."""
        self._unsent.append(memoryview(data))

    def tell(self, message: pipe.PipeMessage) -> None:
        """Queue a message for the next `flush`."""
        if isinstance(message, pipe.Plan):
            self._plans[message.serial] = message.ids
        self.write(pipe.pack(message))

    def flush(self) -> None:
        """Send what waits, as far as the child reads."""
        if len(self._unsent) > 1 and sum(map(len, self._unsent)) <= READ:
            # One write wakes the child once.
            self._unsent = deque([memoryview(b"".join(self._unsent))])
        while self._unsent:
            try:
                sent = self.channel.send(self._unsent[0])
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._unsent.clear()  # it has ended; reading will find out
                return
            if sent == len(self._unsent[0]):
                self._unsent.popleft()
            else:
                self._unsent[0] = self._unsent[0][sent:]

    def read(self) -> list[pipe.PipeMessage]:
        """Return what the child has said, claims first; sets `ended` at the end of its stream."""
        said = self._receive()
        claims: list[pipe.Claim] = []
        # In this order: for every Done that is here the claim is seen, and a Claim that was said
        # before one that was noted is here too.
        while serials := self._claims.news():
            claims += [pipe.Claim(serial, self._plans[serial]) for serial in serials]
            said += self._receive()
        claims += [each for each in said if isinstance(each, pipe.Claim)]
        if not claims:
            return said
        claims.sort(key=attrgetter("serial"))
        self._plans = {s: ids for s, ids in self._plans.items() if s > claims[-1].serial}
        return [*claims, *(each for each in said if not isinstance(each, pipe.Claim))]

    def _receive(self) -> list[pipe.PipeMessage]:
        messages: list[pipe.PipeMessage] = []
        while not self.ended:
            try:
                data = self.channel.recv(READ)
            except BlockingIOError:
                return messages
            except ConnectionResetError:
                data = b""
            if not data:
                self.ended = True
                break
            messages.extend(self._stream.feed(data))
        return messages

    def reap(self) -> str:
        """Wait for the ended process and return in words how it ended."""
        self.channel.close()
        self._claims.close()
        if self._process is None:
            self.kill()
            return "ended"
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()  # it closed its channel but lives: nothing of it is of use
            code = self._process.wait()
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _spawn(channel: int, claims: int, device: str) -> subprocess.Popen[bytes]:
    # Set before Python starts, so before anything can import torch and look at the devices.
    changes = {"CUDA_VISIBLE_DEVICES": device} if device else {}
    return subprocess.Popen(
        [*module_command("zstreamer.worker.child"), str(channel), str(claims)],
        pass_fds=[channel, claims],
        env=environment(changes),
        stdin=subprocess.DEVNULL,
    )


def _describe(config: AgentConfig) -> bytes:
    return Description(
        config.target,
        config.pickled,
        config.device,
        list(config.import_path),
        list(config.init_args),
        config.init_kwargs,
        config.num,
    ).to_bytes()


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
        self._child: ChildProcess | None = None
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
                log.info("draining items=%d", len(self.core.docket.jobs))
                self.core.drain()
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
        while todo := self.core.poll(now):
            for action in todo:
                self._act(now, action)
            if self._child is not None:  # now, so that it wakes while this looks once more
                self._child.flush()
        self._journal.tell(now)

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
            elif isinstance(message, pipe.Failed) and self.core.child is ChildState.WARM:
                last = message.text.rstrip().rpartition("\n")[2]
                self._killed = f"is broken: {last:.500}"
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
            self._child = ChildProcess(config)
        except OSError as error:
            log.error("cannot start the model's process: %s", error)  # noqa: TRY400
            self.core.on_child_gone(now, f"could not be started: {error}")
            return
        log.info("model process started pid=%d device=%s", self._child.pid, config.device or "-")

    def _finish(self) -> int:
        if self._child is not None:
            self._child.kill()
            self._child.reap()
        for link in list(self._connections):
            self._close(link)
        transport.context().term()  # returns once the last reports are out, or after LINGER
        if self.exit is None:
            return ExitCode.NOT_DRAINED
        if self.exit.broken:
            sys.stderr.write(self.exit.text.rstrip() + "\n")
            return ExitCode.MODEL
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
