"""Programs that run beside a benchmark: they end when it does, and count where it can see.

    benchmark                                     program: python -m MODULE SETTINGS
      Program(MODULE, …)  ─── stdin, kept open ──▶  settings, counters = begin()
      counters[n]         ◀── a file both map ────  counters[n] += 1
      counters[PAUSED]    ─── a file both map ───▶  while counters[PAUSED]: …

A shared file costs the program nothing but the stores: it need not stop to tell its figures.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.helpers.waiting import until
from zstreamer.system.interpreter import environment, module_command

COUNTERS = 10
READY, PAUSED = COUNTERS - 2, COUNTERS - 1
"""The program sets READY once it can be used; it is to stand still while PAUSED is set. The other
counters are its own."""


class Program:
    """`python -m MODULE` with settings that JSON can carry; it ends with the block."""

    def __init__(self, module: str, **settings: object) -> None:
        self.module = module
        self._folder = tempfile.TemporaryDirectory(prefix="zst-")
        path = Path(self._folder.name, "counters")
        path.write_bytes(bytes(8 * COUNTERS))
        self.counters = _mapped(path)
        self._process = subprocess.Popen(
            [*module_command(module), json.dumps({**settings, "counters": str(path)})],
            env=environment({}),
            stdin=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Wait until the program says that it can be used; raise RuntimeError if it ends."""

        def ready() -> bool:
            if (code := self._process.poll()) is not None:
                raise RuntimeError(f"{self.module} ended with exit code {code}")
            return bool(self.counters[READY])

        until(ready, seconds)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def begin() -> tuple[dict[str, Any], memoryview]:
    """In the program: its settings and its counters. From now on it ends with its starter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(sys.argv[1])
    threading.Thread(target=_end_with_starter, daemon=True).start()
    return settings, _mapped(Path(settings["counters"]))


def _end_with_starter() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # whatever the main thread does, such as zmq.proxy, which never returns


def _mapped(path: Path) -> memoryview:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
