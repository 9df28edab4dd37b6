"""Servers that are measured: programs that start once, take turns, and end with the benchmark.

    benchmark ──── starts ───▶ server, and what it needs, in process groups of their own
        └─ pipe ─▶ reaper      kills these groups once the pipe ends, however the benchmark does

A peer that waits actively is stopped (SIGSTOP) while others have their turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.bench import usage
from tests.bench.web_wrk import Sample, ask
from tests.helpers.cluster import ROOT, free_port
from tests.helpers.waiting import descendants, until
from zstreamer.system.interpreter import environment

START = 120.0
"""Seconds in which a server must answer; a real model may load for long on a busy machine."""

GRACE = 5.0
"""Seconds that a program gets to end by itself."""

REAPER = """
import os, signal, sys
for group in sys.stdin.read().split():
    try:
        os.killpg(int(group), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""

Questions = Sequence[tuple[str, str]]
"""Texts with their right answers."""


@dataclass(frozen=True)
class Service:
    """How to start a server and how to ask it.

    Args:
        name: of the system, for the rows.
        command: its program; "{port}" stands for the port.
        path: of the URL.
        body: makes a question's body of a text.
        answer: writes an answer as it stands in a reply.
        variables: of its environment.
        helpers: programs that it needs, started before it in this order.
        empty: it answers every question with the same.
        stops: it is stopped while it has no turn.
    """

    name: str
    command: Sequence[str]
    path: str
    body: Callable[[str], bytes]
    answer: Callable[[str], bytes] = lambda text: json.dumps(text).encode()
    variables: dict[str, str] = field(default_factory=dict)
    helpers: Sequence[Sequence[str]] = ()
    empty: bool = False
    stops: bool = False


class Server:
    """A service that runs for as long as the block; it can be asked once `wait_ready` returns."""

    def __init__(self, service: Service, questions: Questions) -> None:
        self.service = service
        self._questions = questions
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}{service.path}"
        self._stack = contextlib.ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []

    def wait_ready(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer its first question rightly in time.
        """
        self._file.write_text(lines(self.service, self._questions, self._template()))
        self._signal(signal.SIGSTOP)

    def measure(self, connections: int, seconds: int, threads: int = 2) -> Sample:
        """Let it have its turn; see `web_wrk.ask`."""
        self._signal(signal.SIGCONT)
        try:
            before = self._cpu()
            sample = ask(self.url, self._file, connections, seconds, threads)
            used = self._cpu() - before
            return replace(sample, cpu=used * 1e6 / sample.right if sample.right else 0.0)
        finally:
            self._signal(signal.SIGSTOP)

    def __enter__(self) -> Server:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zst-")))
            self._log = folder / "log"
            self._file = folder / "questions"
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        reaper = subprocess.Popen(
            [sys.executable, "-c", REAPER], stdin=subprocess.PIPE, start_new_session=True
        )
        stack.callback(self._end, reaper)
        for command in (*self.service.helpers, self.service.command):
            self._processes.append(self._program(command))
            reaper.stdin.write(f"{self._processes[-1].pid}\n".encode())
            reaper.stdin.flush()

    def _program(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        port = str(self._port)
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [part.replace("{port}", port) for part in command],
                cwd=ROOT,
                env={**environment({}), **self.service.variables, "PORT": port},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _end(self, reaper: subprocess.Popen[bytes]) -> None:
        """Ask the server to end, then its helpers; what is left after a while is killed."""
        self._signal(signal.SIGCONT)
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        reaper.stdin.close()
        for process in (reaper, *self._processes):
            process.wait()

    def _template(self) -> tuple[bytes, bytes]:
        """What stands before and after an answer in the body of a reply."""
        text, answer = self._questions[0]

        def replied() -> bytes | None:
            for process in self._processes:
                if (code := process.poll()) is not None:
                    raise self._failed(f"ended with code {code}")
            with contextlib.suppress(OSError):
                return post(self.url, self.service.body(text))
            return None

        try:
            reply = until(replied, START, pause=0.1)
        except AssertionError:
            raise self._failed("gave no answer") from None
        if self.service.empty:
            return reply, b""
        before, found, after = reply.partition(self.service.answer(answer))
        if not found:
            raise self._failed(f"answered {text!r} with {reply!r}")
        return before, after

    def _cpu(self) -> float:
        """CPU seconds that the web server has used, without its helpers."""
        web = self._processes[-1].pid
        return sum(usage.cpu(each) for each in (web, *descendants(web)))

    def _failed(self, words: str) -> RuntimeError:
        return RuntimeError(f"{self.service.name} {words}; {self._log.read_text()[-2000:]}")

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes if self.service.stops else ():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)


def lines(service: Service, questions: Questions, template: tuple[bytes, bytes]) -> str:
    """The questions and their right answers, as `web.lua` reads them."""
    texts = []
    for text, answer in questions:
        reply = template[0] if service.empty else service.answer(answer).join(template)
        texts.append(f"{service.body(text).hex()}\t{reply.hex()}\n")
    return "".join(texts)


def post(url: str, body: bytes) -> bytes:
    """The body of the reply; raises OSError where there is none, or an error."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return bytes(reply.read())
