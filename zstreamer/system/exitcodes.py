"""The exit codes of every zstreamer program, for scripts and supervisors to tell apart."""

from __future__ import annotations

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """What a program's exit code says."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """Keep the meaning beside the number."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "Done; or drained and stopped, as asked."
    FAILED = 1, "A request failed, or the program met an error that it did not expect."
    USAGE = 2, "A flag, variable, file or input is wrong; trying again does not help."
    UNREACHABLE = (
        3,
        "An address cannot be bound or reached: in use, wrong, or nothing listens there.",
    )
    MODEL = 4, "The model cannot start: not found, or it raised at each attempt."
    NOT_DRAINED = (
        5,
        "Stopped before the work was done: by a second signal, or because it took too long.",
    )
    MEMORY = (
        6,
        "The broker used more memory than max_memory; its log lists the sessions that hold most.",
    )
    ITEMS = 7, "The job is done, but some of its items failed: their errors are in their places."
    INTERRUPTED = 130, "Ctrl-C or SIGTERM in a command that has nothing to drain."
    UNKNOWN = 255, "Only in logs: another part of a program collected its child's exit code."


def of_child(code: int, *, stopped: bool = False) -> int:
    """Return a child's exit code as one of these; a signal that has ended it has none.

    Args:
        code: as `Process` gives it, below zero for a signal.
        stopped: it was asked to stop. A signal ends it before it can handle signals, and after it
            has drained: in both cases nothing is left undone.
    """
    if code >= 0:
        return code
    asked = stopped and -code in (signal.SIGTERM, signal.SIGINT)
    return ExitCode.OK if asked else ExitCode.FAILED
