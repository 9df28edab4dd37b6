"""How glibc keeps memory for a process through which large payloads pass."""

from __future__ import annotations

import contextlib
import ctypes

KEPT = 64 * 1024 * 1024
"""Bytes of free memory that are kept for the next payloads and not given back at once."""

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
