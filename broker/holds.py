"""Names that an operator has drained or refused, until they are resumed.

A name is a peer's ``host:pid``, its host, ``model NAME`` for all workers of a model, or
``model NAME@VERSION`` for those of a version (``model NAME@`` for those that announce none). It
holds for peers that come later, too: a drained worker that loses its connection comes back drained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zstreamer.broker import introduction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zstreamer.broker.workers import Worker

MOST = 1000
"""Names that are held at once."""

MAX_NAME = 512
"""Characters of one."""


class Holds:
    """The names that one order holds for now."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def add(self, name: str) -> str:
        """Hold a name; return what is wrong with that, or nothing."""
        if not 0 < len(name) <= MAX_NAME:
            return f"a name has 1 to {MAX_NAME} characters"
        if len(self.names) >= MOST and name not in self.names:
            return f"there are {MOST:,} names already; resume some"
        self.names[name] = None
        return ""

    def remove(self, name: str) -> None:
        """Let a name go. A peer resumes only when none of its names is held."""
        self.names.pop(name, None)

    def holds(self, worker: Worker) -> bool:
        """Whether one of a worker's names is held."""
        return self.first(names(worker)) is not None

    def first(self, names: Iterable[str]) -> str | None:
        """Return the first of a peer's names that is held."""
        return next((name for name in names if name in self.names), None) if self.names else None

    def of_hello(self, info: Mapping[str, object]) -> str | None:
        """Return which name of a peer that says HELLO is held."""
        if not self.names:
            return None
        names = of_peer(introduction.kept(info))
        if isinstance(model := info.get("model"), str):  # only workers have one
            return self.first((*names, *_of_model(model, info.get("version") or "")))
        return self.first(names)


def names(worker: Worker) -> tuple[str, ...]:
    """Return the names by which an operator may call a worker, its own first."""
    version = worker.info.get("version") or ""
    return *of_peer(worker.info), *_of_model(worker.serves, version)


def of_peer(info: Mapping[str, object]) -> tuple[str, str]:
    """Return the names of a client or a worker, its own first, from what HELLO says of it."""
    host = str(info.get("host", "-"))
    return f"{host}:{info.get('pid', '-')}", host


def _of_model(name: str, version: object) -> tuple[str, str]:
    return f"model {name}", f"model {name}@{version!s:.100}"


def named(workers: Iterable[Worker], name: str) -> list[Worker]:
    """Return the workers that have this name."""
    return [worker for worker in workers if name in names(worker)]
