"""The model's process, as its agent sees it: started, told, read and reaped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket as sockets
import subprocess
from collections import deque
from operator import attrgetter

from zstreamer.config import AgentConfig
from zstreamer.system.interpreter import environment, module_command
from zstreamer.worker import forkserver, pipe
from zstreamer.worker.claims import Claims
from zstreamer.worker.target import Description

READ = 1024 * 1024
"""Bytes read from the child at once."""


class ModelProcess:
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

    def leave(self, seconds: float) -> None:
        """Let the process end by itself: it may have spans to send."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(sockets.SHUT_WR)
            self.channel.settimeout(seconds)
            while self.channel.recv(READ):
                pass

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
        config.num + config.others,
        config.log_level,
        config.private,
        config.log_format,
        config.prepare_workers,
        config.predict_timeout,
        config.served,
        config.tracing,
    ).to_bytes()
