r"""Programs started as children whose life is tied to their owner's.

A child gets its configuration as the first line of a pipe; the owner keeps the other end open:

    owner                                  child: MODULE --owner-fd N
      write end ── {"owner": PID, ─────────▶ N   read_config() -> config, Owner
      (kept open)   "config": {…}}\n              Owner.gone(): the pipe's end, or another parent

The pipe's end tells of an owner that died however it died. The parent's process id is compared as
well, since a process that the owner forked holds a copy of the write end and may outlive it.
"""

from __future__ import annotations

import json
import os

# os is patched by gevent: its posix_spawn wants the main thread's hub, its close comes late.
import posix
import signal
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from zstreamer.config import Config, from_json, to_json
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.interpreter import environment, module_command

C = TypeVar("C", bound=Config)

OWNER_FLAG: Final = "--owner-fd"
FOLDER_FLAG: Final = "--remove-folder"
"""Says to a child which folder to remove when it ends: its owner may have been killed by then."""

OWNER_CHECK: Final = 0.5
"""Seconds between two looks of a child at whether its owner still lives."""

PR_SET_PDEATHSIG: Final = 1
"""Of prctl(2): the signal that a process gets when its parent ends."""

CLOSE_GRACE: Final = 2.0
"""Seconds that a child gets to end by itself once its owner has released it."""


class Process:
    """`python -m MODULE`, started at once; it ends when this process does, if not before.

    module: what to run; it calls `read_config` first of all.
    config: handed over as JSON.
    args: further command-line arguments.
    env: environment variables besides the owner's, or None in place of one to leave out.
    pass_fds: file descriptors that the child gets under the same numbers.

    It works from any thread and under gevent's monkey-patching, where `wait` lets others run. The
    child has a process group of its own, so that Ctrl-C reaches only the owner, who decides in
    which order its children stop. Raises OSError where the child cannot be started.
    """

    def __init__(
        self,
        module: str,
        config: Config,
        *,
        args: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        line = json.dumps({"owner": os.getpid(), "config": json.loads(to_json(config))})
        self.module = module
        self.exit_code: int | None = None
        self._owner = os.getpid()
        self._reaping = threading.Lock()
        reader, writer = os.pipe()
        self._let_go = weakref.finalize(self, posix.close, writer)
        try:
            command = [*module_command(module), OWNER_FLAG, str(reader), *args]
            self.pid = _spawn(command, environment(env or {}), (reader, *pass_fds))
        except BaseException:
            self._let_go()
            raise
        finally:
            posix.close(reader)
        self._write(writer, line.encode() + b"\n")

    def poll(self) -> int | None:
        """The exit code (minus the signal's number where one killed it), None while it runs."""
        if self.exit_code is None and self._reaping.acquire(blocking=False):
            try:
                self.exit_code = self._reap()
            finally:
                self._reaping.release()
        return self.exit_code

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, or None where the child still runs after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        pause = 0.001
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() >= end:
                return None
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return code

    def terminate(self) -> None:
        """Ask the child to drain and end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the child at once (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Release the child, which then ends by itself, or is killed after 2 s.

        In a fork of the owner it only closes the fork's copy of the pipe.
        """
        self._let_go()
        if os.getpid() == self._owner and self.wait(CLOSE_GRACE) is None:
            self.kill()
            self.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "running" if self.exit_code is None else f"exit code {self.exit_code}"
        return f"<Process {self.module}, pid {self.pid}, {state}>"

    def _signal(self, number: signal.Signals) -> None:
        if os.getpid() == self._owner and self.poll() is None:
            os.kill(self.pid, number)

    def _reap(self) -> int | None:
        try:
            pid, status = posix.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            # SIGCHLD is ignored here, or another library waits for every child.
            return ExitCode.UNKNOWN
        return os.waitstatus_to_exitcode(status) if pid else None

    def _write(self, writer: int, text: bytes) -> None:
        """Hand over more than a pipe holds without blocking a hub; a dead child shows in poll()."""
        os.set_blocking(writer, False)
        while text:
            try:
                text = text[os.write(writer, text) :]
            except BlockingIOError:
                time.sleep(0.002)
            except BrokenPipeError:
                return


class Owner:
    """The child's view of the process that started it."""

    def __init__(self, fd: int, pid: int) -> None:
        os.set_blocking(fd, False)
        self.pid = pid
        self._fd = fd

    def fileno(self) -> int:
        """A descriptor for a poll loop; readable once the owner is gone."""
        return self._fd

    def gone(self) -> bool:
        """Whether the owner has died or released it; ask every `OWNER_CHECK`, and end if so."""
        return os.getppid() != self.pid or self._at_end()

    def _at_end(self) -> bool:
        try:
            return not os.read(self._fd, 4096)
        except BlockingIOError:
            return False


def end_with_parent() -> None:
    """Have this process killed when its parent ends, also while it can look at nothing itself.

    The parent's thread that has started it counts, so that must be one that lives as long as the
    parent. Linux only, and as far as ctypes and the kernel let it: elsewhere a process that never
    gives up the GIL stays behind where its parent was killed.
    """
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def owned(argv: Sequence[str] | None = None) -> bool:
    """Whether this program was started by `Process`. argv: sys.argv where not given."""
    return OWNER_FLAG in (sys.argv if argv is None else argv)


def read_config(program: type[C], argv: Sequence[str] | None = None) -> tuple[C, Owner]:
    """The configuration that the owner sent, and the owner to keep an eye on.

    Raises SystemExit where the owner went away first, ConfigError for unusable values.
    """
    arguments = list(sys.argv if argv is None else argv)
    fd = int(arguments[arguments.index(OWNER_FLAG) + 1])
    os.set_inheritable(fd, False)
    text = b""
    while not text.endswith(b"\n"):
        read = os.read(fd, 65536)
        if not read:
            raise SystemExit(ExitCode.FAILED)
        text += read
    sent = json.loads(text)
    return from_json(program, json.dumps(sent["config"])), Owner(fd, sent["owner"])


def _spawn(command: list[str], env: Mapping[str, str], fds: Sequence[int]) -> int:
    """Start a command with the given descriptors open, and with nothing to read from."""
    copies = [os.dup(fd) for fd in fds]
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (posix.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    # Duplicating a descriptor onto another number makes it inheritable; onto itself does not
    # everywhere.
    actions += [(posix.POSIX_SPAWN_DUP2, copy, fd) for copy, fd in zip(copies, fds, strict=True)]
    try:
        return posix.posix_spawn(
            command[0], command, env, file_actions=actions, setpgroup=0, setsigmask=()
        )
    finally:
        for copy in copies:
            posix.close(copy)
