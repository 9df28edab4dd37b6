"""Load from processes of their own, so that a benchmark's bookkeeping is not in the way."""

from __future__ import annotations

import contextlib
import json
import queue
import statistics
import subprocess
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.bench.callers import Spec, Tally
from zstreamer.system.interpreter import environment, module_command

ROOT = Path(__file__).parent.parent.parent

CALLERS = "tests.bench.callers"

START = 150.0
"""Seconds that a program of callers may take to start and to see a warm worker."""

LATE = 30.0
"""Seconds beyond its own length and its items' timeout after which a load counts as hung."""


class Load:
    """Programs of callers that call one model, for as long as the block.

    Args:
        arguments: of the program: for `tests.bench.callers` the broker's address for clients, and
            whom to call.
        processes: among how many programs each load is divided.
        module: the program.
    """

    def __init__(self, *arguments: str, processes: int = 1, module: str = CALLERS) -> None:
        self._programs = [_Program(module, arguments) for _ in range(processes)]

    @property
    def pids(self) -> list[int]:
        """The programs' process ids."""
        return [program.pid for program in self._programs]

    def measure(self, spec: Spec) -> Tally:
        """Make a load, of at least one caller a process, and return the `Tally` of all."""
        count = len(self._programs)
        for number, program in enumerate(self._programs):
            # The remainder goes to the first, so that not a caller is lost.
            callers = spec.callers // count + (number < spec.callers % count)
            program.ask(replace(spec, rate=spec.rate / count, callers=callers))
        limit = spec.warm_up + spec.seconds + spec.timeout + LATE
        return together([program.answer(limit) for program in self._programs])

    def __enter__(self) -> Load:
        try:
            for program in self._programs:
                program.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._programs:
            program.close()


class _Program:
    """One program of callers."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [*module_command(module), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**environment({}), "PYTHONPATH": str(ROOT)},
        )
        self.pid = self._process.pid
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self) -> None:
        """Wait until it answers: an empty load is made at once."""
        self.ask(Spec(callers=0, warm_up=0.0, seconds=0.0))
        self.answer(START)

    def ask(self, spec: Spec) -> None:
        """Have it make a load."""
        # One that has ended says so where its answer is awaited.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asdict(spec)) + "\n")
            self._process.stdin.flush()

    def answer(self, limit: float) -> Tally:
        """The tally, which must come within so many seconds."""
        line = self._lines.get(timeout=limit)
        if not line:
            raise RuntimeError(f"the callers ended with code {self._process.wait(5)}")
        return Tally(**json.loads(line))

    def close(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


def together(tallies: Sequence[Tally]) -> Tally:
    """One tally of several that were taken at the same time."""
    return Tally(
        start=max(each.start for each in tallies),
        end=min(each.end for each in tallies),
        made=sum(each.made for each in tallies),
        answered=sum(each.answered for each in tallies),
        before=max(each.before for each in tallies),
        last=max(each.last for each in tallies),
        latencies=[us for each in tallies for us in each.latencies],
        beyond=[us for each in tallies for us in each.beyond],
        errors=sum((Counter(each.errors) for each in tallies), Counter()),
    )


@dataclass(frozen=True)
class Times:
    """Milliseconds of many items: the median, and what 99 of 100 stay below."""

    median: float
    most: float

    @classmethod
    def of(cls, microseconds: Sequence[int]) -> Times:
        """Sum up; zeros where there were no items."""
        if len(microseconds) < 2:
            return cls(*(2 * [each / 1e3 for each in microseconds] or (0.0, 0.0)))
        hundredths = statistics.quantiles(microseconds, n=100, method="inclusive")
        return cls(hundredths[49] / 1e3, hundredths[98] / 1e3)
