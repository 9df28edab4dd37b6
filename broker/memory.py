"""The memory of a process through which large payloads pass: how glibc keeps it, and its end.

The broker bounds what it keeps itself. What libzmq has read of a message that never ends cannot be
seen from here, so the process as a whole has a bound too: beyond it the broker ends, before the
system ends something else, and clients and workers find the one that is started in its place.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

KEPT = 64 * 1024 * 1024
"""Bytes of free memory that are kept for the next payloads and not given back at once."""

TRIM = 3 * KEPT
TRIM_EVERY = 5.0
"""Bytes in use beyond which free memory is given back after all, and seconds between two times.
What a flood of messages has taken lies scattered, where glibc does not look by itself: of 300 MiB
none went back, and all of it in 0.1 s when asked for."""

CHECK = 1.0
"""Seconds between two looks at the memory in use."""

CAPS = 4
"""The default of max_memory: so many times the cap on queued bytes."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_LARGEST = 32 * 1024 * 1024
"""The most that mallopt takes as a threshold on 64 bits."""


def keep_free_blocks() -> None:
    """Have large blocks come from memory that was used before.

    By default a payload of a megabyte is mapped, faulted in page by page and unmapped again, which
    costs the broker more than anything else that it does for it. Does nothing where the C library
    is another.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)


def give_back() -> None:
    """Give free memory back to the system, but for what the next payloads may need."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(KEPT)


class Guard:
    """Looks at the memory in use once a second.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._check_at = 0.0
        self._trim_at = 0.0

    def exceeded(self, now: float) -> int:
        """Return the bytes in use where they are more than the limit, else 0."""
        if now < self._check_at:
            return 0
        self._check_at = now + CHECK
        used = in_use()
        if used > TRIM and now >= self._trim_at:
            self._trim_at = now + TRIM_EVERY
            give_back()
            used = in_use()
        return used if used > self.limit else 0


def limit(asked: int | None, max_bytes: int) -> int:
    """Return how many bytes the broker may use.

    Args:
        asked: what it was told; None: half of what the machine or its control group has, but no
            more than a few times the cap on queued bytes.
        max_bytes: that cap.
    """
    return asked if asked is not None else min(available() // 2, CAPS * max_bytes)


def in_use() -> int:
    """Return the bytes of memory that this process has; on macOS the most that it has had."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def available() -> int:
    """Return the bytes of memory of this machine, or of the control group if that has less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limit_files():
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            sizes.append(int(path.read_text(encoding="ascii")))
    return min(sizes)


def _limit_files() -> list[Path]:
    """Where Linux keeps the limits of this process's control group and of those above it."""
    found = [Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]  # version 1
    with contextlib.suppress(OSError, IndexError):
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::")[2].strip()
        group = Path("/sys/fs/cgroup", own.lstrip("/"))
        found += [each / "memory.max" for each in (group, *group.parents)]
    return found
