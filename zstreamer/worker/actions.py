"""What a worker's core asks of its driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from zstreamer.wire.link import LinkAction
from zstreamer.worker import pipe
from zstreamer.worker.link import WorkerLink


@dataclass(frozen=True, slots=True)
class Tell:
    """Write a message to the child."""

    message: pipe.PipeMessage


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start the model's process."""


@dataclass(frozen=True, slots=True)
class KillChild:
    """Kill the model's process; `on_child_gone` follows."""

    why: str


@dataclass(frozen=True, slots=True)
class Exit:
    """The agent has nothing more to do; ``broken`` where its model cannot start."""

    broken: bool
    text: str = ""


ChildAction: TypeAlias = Tell | StartChild | KillChild | Exit
Action: TypeAlias = LinkAction[WorkerLink] | ChildAction
