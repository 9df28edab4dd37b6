"""What a process has used of the CPU, and how fast this machine is just now."""

from __future__ import annotations

import time
from pathlib import Path

CALIBRATION = 20_000
"""Turns of the loop that `calibration` times; a few milliseconds."""


def cpu(pid: int) -> float:
    """Return the CPU seconds that all threads of a process have used, libzmq's among them.

    From /proc/PID/task/*/schedstat, whose first field is nanoseconds: the times of /proc/PID/stat
    come in steps of 10 ms. Threads that have ended are not in it, so a program whose threads
    come and go cannot be measured like this.
    """
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def all_cpu(pid: int) -> float:
    """Return the CPU seconds of a process with its threads that have ended; Linux alone.

    The kernel's clock of a process: its number is made of the process id, as `clock_getcpuclockid`
    does.
    """
    return time.clock_gettime(~pid << 3 | 2)


def calibration() -> float:
    """Return the CPU µs that 1,000 turns of a plain Python loop take here and now."""
    start = time.thread_time()
    total = 0
    for number in range(CALIBRATION):
        total += number & 7
    return (time.thread_time() - start) * 1e9 / CALIBRATION
