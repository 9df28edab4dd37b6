"""What a process has of its machine and how much of it is in use: CPUs, memory, descriptors, clock.

Read from Linux's /proc and /sys when somebody asks; what a system does not tell is left out.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from zstreamer.system import cpus

BUSY_THREAD = 0.4
"""Share of the busiest thread's CPU time from which another one counts as computing, too."""

MAX_THREADS = 512
"""Threads of one process that are looked at."""

_TICK = os.sysconf("SC_CLK_TCK")


def of_process() -> dict[str, object]:
    """Return what this process and its machine have: see the keys."""
    found: dict[str, object] = {"time": time.time(), "cpus": usable_cpus()}
    used, limit = memory()
    if limit:
        found |= {"memory": used, "memory_limit": limit}
    with contextlib.suppress(OSError):
        found["descriptors"] = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # counts only
        found["descriptor_limit"] = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return found


def of_model(pid: int) -> dict[str, object]:
    """Return the CPU seconds that a model's process has used, and how many threads compute.

    Args:
        pid: of that process; 0 for none.
    """
    seconds = sorted(_thread_seconds(pid)) if pid else []
    if not seconds:
        return {}
    computing = [each for each in seconds if each >= BUSY_THREAD * seconds[-1]]
    return {"model_cpu": sum(seconds), "model_threads": len(computing)}


def usable_cpus() -> float:
    """Return how many CPUs this process may use at once: by its affinity and its cgroups."""
    if hasattr(os, "sched_getaffinity"):
        return min(float(len(os.sched_getaffinity(0))), cpus.granted())
    return float(os.cpu_count() or 1)


def memory() -> tuple[int, int]:
    """Return the bytes in use and their limit, of the cgroup or else of the machine; 0 unknown."""
    found = [pair for group in _memory_groups() if (pair := _of_group(group))]
    machine = _of_machine()
    found += [machine] if machine[1] else []
    return max(found, key=lambda pair: pair[0] / pair[1], default=(0, 0))


def _of_machine() -> tuple[int, int]:
    values: dict[str, int] = {}
    for line in _lines(Path("/proc/meminfo")):
        name, _, rest = line.partition(":")
        with contextlib.suppress(ValueError, IndexError):
            values[name] = int(rest.split()[0]) * 1024
    total = values.get("MemTotal", 0)
    return total - values.get("MemAvailable", total), total


def _memory_groups() -> Iterator[Path]:
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers in ("", "memory"):
            top = cpus.CGROUPS / controllers
            group = top / path.lstrip("/")
            yield from (each for each in (group, *group.parents) if each.is_relative_to(top))


def _of_group(group: Path) -> tuple[int, int] | None:
    """Return what a cgroup's processes hold, without the page cache, and its limit."""
    names = (("memory.max", "anon"), ("memory.limit_in_bytes", "total_rss"))
    for limit_file, used_key in names:
        limit = "".join(_lines(group / limit_file)).strip()
        if not limit.isdigit() or int(limit) >= 2**62:
            continue
        for line in _lines(group / "memory.stat"):
            key, _, value = line.partition(" ")
            if key == used_key:
                return int(value), int(limit)
    return None


def _thread_seconds(pid: int) -> Iterator[float]:
    folder = Path(f"/proc/{pid}/task")
    try:
        tasks = os.listdir(folder)[:MAX_THREADS]  # noqa: PTH208  # names only
    except OSError:
        return
    for task in tasks:
        fields = "".join(_lines(folder / task / "stat")).rpartition(")")[2].split()
        if len(fields) > 12:
            yield (int(fields[11]) + int(fields[12])) / _TICK


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
