"""Waiting for what other processes do, with a deadline."""

import contextlib
import time

import psutil


def until(condition, seconds=20.0, pause=0.01, said=str):
    """Wait until the condition is true and return its value; there is no event to wait for.

    What `said` returns belongs to the failure's message.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"it did not happen within {seconds:g} s {said()}"
        time.sleep(pause)
    return found


def is_gone(pid):
    """Whether a process has ended; a zombie has."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def all_gone(pids, seconds=5.0):
    """Whether these processes end within so many seconds."""
    end = time.monotonic() + seconds
    while not all(map(is_gone, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def descendants(pid):
    """Process ids of everything that a process has started, and what that has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [each.pid for each in psutil.Process(pid).children(recursive=True)]
    return []
