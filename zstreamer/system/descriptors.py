"""Whether this process may open more files and sockets.

libzmq ends the whole process where it gets no descriptor for one of its threads, and says nothing
where it gets none for a connection. So they are counted before it is asked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import posix  # gevent closes a file later where `os` is asked for it
import resource

NEEDED = 16
"""Descriptors that a client's first connection takes at most: 12 were counted."""


def require(count: int = NEEDED) -> None:
    """Do nothing where so many descriptors are free.

    Raises:
        OSError: they are not; it says what to do.
    """
    if not _free(count):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise OSError(
            errno.EMFILE,
            f"this process cannot open a connection: it may have {limit} open files and sockets, "
            "and nearly all are in use; raise the limit (ulimit -n, LimitNOFILE=), or look for "
            "what it does not close",
        )


def _free(count: int) -> bool:
    """Whether so many numbers are free; takes no more than two, since other threads need some."""
    try:
        any_file = os.open("/", os.O_RDONLY)
    except OSError:
        return False
    try:
        number = any_file
        for _ in range(count - 1):
            number = fcntl.fcntl(any_file, fcntl.F_DUPFD_CLOEXEC, number + 1)
            posix.close(number)
    except OSError:
        return False
    finally:
        posix.close(any_file)
    return True
