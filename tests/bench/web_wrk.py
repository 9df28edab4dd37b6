"""Asks a server with wrk, which checks every answer: see `web.lua`."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).parent / "web.lua"

THREADS = 2
"""Of wrk. An answer that went to another connection shows where that is of another thread."""

PATIENCE = 20
"""Seconds after which wrk counts an answer as failed."""

LATE = 60.0
"""Seconds beyond its own length after which a run counts as hung."""

_FIGURES = re.compile(
    r"^right (\d+) wrong (\d+) failed (\d+) us (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE
)
_EXAMPLE = re.compile(r"^example (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """What one run found.

    Attributes:
        rate: right answers a second.
        p50, p90, p99: milliseconds from a question to its answer; wrk adds what it would have
            asked while it waited for late ones.
        right, wrong: answers.
        failed: connections that were refused or broke, and answers that were too late.
        example: status and body of a wrong answer.
        cpu: microseconds that the server's processes have used for each right answer.
    """

    rate: float
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    right: int = 0
    wrong: int = 0
    failed: int = 0
    example: str = ""
    cpu: float = 0.0

    @property
    def bad(self) -> int:
        """Answers that were wrong, late or missing; one at least where there were none."""
        return self.wrong + self.failed + (not self.right)


def ask(
    url: str, questions: Path, connections: int, seconds: int, threads: int = THREADS
) -> Sample:
    """Ask on so many connections at once, each as soon as it is answered.

    Args:
        url: of all questions.
        questions: what `web_server.Server` has written for `web.lua`.
        connections: at least as many as threads.
        seconds: whole ones, at least 1.
        threads: with one for each connection, answers are held against the connection's own
            question.

    Raises:
        RuntimeError: wrk cannot be run, or has failed.
    """
    if not shutil.which("wrk"):
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    found = subprocess.run(
        [
            *("wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s"),
            *(f"--timeout={PATIENCE}s", "-H", "Content-Type: application/json"),
            *("-s", str(SCRIPT), url, "--", str(questions), str(threads)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds + LATE,
        check=False,
    )
    return parse(found.stdout)


def parse(output: str) -> Sample:
    """Read what `web.lua` prints.

    Raises:
        RuntimeError: it has printed no figures.
    """
    if (figures := _FIGURES.search(output)) is None:
        raise RuntimeError(f"wrk has failed: {output.strip()[-1000:]}")
    right, wrong, failed, us, p50, p90, p99 = map(int, figures.groups())
    example = _EXAMPLE.search(output)
    return Sample(
        rate=right / us * 1e6,
        p50=p50 / 1e3,
        p90=p90 / 1e3,
        p99=p99 / 1e3,
        right=right,
        wrong=wrong,
        failed=failed,
        example=example[1] if example else "",
    )


def median(samples: Sequence[Sample], name: str) -> float:
    """The median of one of the figures."""
    return statistics.median(getattr(sample, name) for sample in samples)
