"""The CPU cores that this process may use, how many are one worker's share, and who gives way.

Counted are cores, not hardware threads: two threads of one core share the units that a model
computes with. Of the cores that the affinity mask allows, no more count than the cgroups around
this process grant in time, which is how a container is limited.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

CPUS = Path("/sys/devices/system/cpu")
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def share(workers: int) -> int:
    """Return how many cores each of so many workers on this machine has, at least 1."""
    return max(1, int(min(cores(), granted()) / workers))


def cores(folder: Path = CPUS, allowed: Iterable[int] | None = None) -> int:
    """Return how many cores the CPUs that this process may run on belong to.

    Args:
        folder: where Linux describes its CPUs; one that it does not describe counts as a core.
        allowed: numbers of the CPUs; None asks the system.
    """
    if allowed is None:
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else _all()
    siblings = (folder / f"cpu{cpu}/topology/thread_siblings_list" for cpu in allowed)
    return len({_read(path) or str(path) for path in siblings})


def granted(own: Path = OWN_CGROUPS, mount: Path = CGROUPS) -> float:
    """Return how many cores' worth of time the cgroups allow; infinite where they set no limit.

    Args:
        own: the file that names this process's cgroups (cgroups(7), both versions).
        mount: where their folders are mounted.
    """
    return min(map(_quota, _groups(own, mount)), default=math.inf)


def _all() -> range:
    return range(os.cpu_count() or 1)


def _groups(own: Path, mount: Path) -> Iterator[Path]:
    """The folders of the process's cgroups and of those around them, whose limits hold too."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top = mount  # version 2 has one tree for all controllers
        elif "cpu" in controllers.split(","):
            top = mount / "cpu"
        else:
            continue
        group = PurePosixPath(path)
        yield from (top / each.relative_to("/") for each in (group, *group.parents))


def _quota(group: Path) -> float:
    text = _read(group / "cpu.max")
    if not text:
        text = f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    match text.split():
        case [quota, period] if quota.isdigit() and period.isdigit():
            return int(quota) / int(period)
        case _:  # "max" or -1: no limit; or no such file
            return math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def give_way() -> None:
    """Never preempt another process when this one, or one that it starts, wakes up.

    An agent is mostly woken by its model, which then often lost its core to the agent for half a
    millisecond of each batch. Linux does not preempt for a process of SCHED_BATCH (sched(7));
    while any core is free this costs nothing.
    """
    _enter("SCHED_BATCH")


def stand_up() -> None:
    """End what `give_way` began in the process that started this one."""
    _enter("SCHED_OTHER")


def _enter(policy: str) -> None:
    number = getattr(os, policy, None)  # Linux only
    if number is not None:
        with contextlib.suppress(OSError):  # some containers forbid it
            os.sched_setscheduler(0, number, os.sched_param(0))
