"""Workers that an operator keeps from new items, by name: drained until they are resumed.

A name is a worker's ``host:pid``, its host, ``model NAME`` for all workers of a model, or
``model NAME@VERSION`` for those of a version (``model NAME@`` for those that announce none). It
holds for workers that come later, too: one that loses its connection comes back drained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zstreamer.broker.workers import Worker

MOST = 1000
"""Names that are held at once."""

MAX_NAME = 512
"""Characters of one."""


class Holds:
    """The names that are drained now."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def add(self, name: str) -> str:
        """Hold a name; return what is wrong with that, or nothing."""
        if not 0 < len(name) <= MAX_NAME:
            return f"a name has 1 to {MAX_NAME} characters"
        if len(self.names) >= MOST and name not in self.names:
            return f"{MOST:,} names are drained already; resume some"
        self.names[name] = None
        return ""

    def remove(self, name: str) -> str:
        """Let a name go. A worker resumes only when none of its names is held."""
        self.names.pop(name, None)
        return ""

    def holds(self, worker: Worker) -> bool:
        """Whether this worker is to get nothing new."""
        return bool(self.names) and not self.names.keys().isdisjoint(names(worker))


def names(worker: Worker) -> tuple[str, ...]:
    """Return the names by which an operator may call a worker, its own first."""
    host = str(worker.info.get("host", "-"))
    own = f"{host}:{worker.info.get('pid', '-')}"
    version = worker.info.get("version") or ""
    return own, host, f"model {worker.serves}", f"model {worker.serves}@{version}"


def named(workers: Iterable[Worker], name: str) -> list[Worker]:
    """Return the workers that have this name."""
    return [worker for worker in workers if name in names(worker)]
