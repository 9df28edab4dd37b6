"""Models that can only be had by forking the program that holds them (mp_start_method="fork").

    program ── fork ──> fork server ── fork ──> the model's process, for each start
                            ^ one end of a channel, from the agent

The server is forked when the `Streamer` is made, and forks again whenever an agent asks, so that
a model's process that died can be started again without touching the program's threads.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from zstreamer.model import Loaded

GLANCE = 0.5
"""Seconds between two looks at whether the program still lives."""


class ForkServer:
    """The forked server, as the program sees it.

    Args:
        address: path of the Unix socket on which it listens.
        load: loads the model for a device (empty: none); runs in each model's process.
    """

    def __init__(self, address: str, load: Callable[[str], Loaded]) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(address)
        listener.listen()
        owner = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _serve(listener, load, owner)
            finally:
                os._exit(0)
        listener.close()

    def close(self) -> None:
        """End the server; its models end with their agents."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _serve(listener: socket.socket, load: Callable[[str], Loaded], owner: int) -> None:
    # Not at the top: `python -m zstreamer.worker.child` imports this package first.
    from zstreamer.worker import child
    from zstreamer.worker.claims import Claims

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the models: reap them
    listener.settimeout(GLANCE)
    while os.getppid() == owner:
        try:
            asking, _ = listener.accept()
        except TimeoutError:
            continue
        with asking:
            _, fds, _, _ = socket.recv_fds(asking, 1, 2)
            if len(fds) < 2:  # the one that asked is gone
                continue
            pid = os.fork()
            if pid == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                sys.stdin = None
                child.run(socket.socket(fileno=fds[0]), Claims(fds[1]), load)
            for fd in fds:
                os.close(fd)
            with suppress(OSError):
                asking.sendall(pid.to_bytes(8, "big"))


def ask(address: str, channel: socket.socket, claims: int) -> int:
    """Have a model's process started; return its process id.

    Args:
        address: the server's.
        channel: the process's end of it.
        claims: descriptor of what the agent shares with it.

    Raises:
        OSError: the server is gone.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.settimeout(10.0)
        server.connect(address)
        socket.send_fds(server, [b"\0"], [channel.fileno(), claims])
        answer = server.recv(8)
    if len(answer) != 8:
        raise ConnectionError(f"the fork server at {address} ended")
    return int.from_bytes(answer, "big")
