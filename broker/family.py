"""The versions of one model, and which of them may be given items now.

    a client asks for bert ─> family of bert ─┬─ 9 of 10 ─> model bert@1 ─> its workers
                                              └─ 1 of 10 ─> model bert@2 ─> its workers

Each version is a `Model` with a queue of its own. The model of the bare name, the front, has the
workers that announce no version, and items wait in it as long as no version may have them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from zstreamer.broker.routes import Route, Shares
from zstreamer.wire.protocol import WorkerState

if TYPE_CHECKING:
    from zstreamer.broker.models import Model
    from zstreamer.broker.shadow import Shadow
    from zstreamer.broker.workers import Worker

BARE = ""
"""The version of workers that announce none."""


class Family:
    """One model's versions.

    Args:
        front: the model of the bare name.

    Attributes:
        members: models by version; the front is one of them.
        route: what an operator has said.
        shares: deals items to the versions that may be given some now; empty where none may.
        given: items that each version was given since the broker's start.
        shadow: what copies items for another version; None where there is none.
        copies: what has been counted of the shadows, by version, since the broker's start.
        said: why items had to wait when clients were told last; None before that.
    """

    def __init__(self, front: Model) -> None:
        self.front = front
        self.members: dict[str, Model] = {BARE: front}
        self.route = Route()
        self.shares = Shares({})
        self.given: dict[str, int] = {}
        self.shadow: Shadow | None = None
        self.copies: dict[str, Counter[str]] = {}
        self.said: str | None = None  # the first look is told, also where a worker comes warm
        self._released: set[str] = set()
        front.family = self

    def join(self, version: str, model: Model) -> None:
        """A version has come."""
        self.members[version] = model
        model.family = self

    def leave(self, version: str) -> None:
        """A version is of no use any more."""
        self.members.pop(version).family = None
        self.given.pop(version, None)

    @property
    def needed(self) -> bool:
        """Whether there is anything that a plain model has not."""
        return len(self.members) > 1 or self.route != Route()

    def deal(self, count: int) -> list[tuple[str, int]]:
        """Return which versions get so many items, and how many each; nothing where none may."""
        shares = self.shares.deal(count)
        for version, items in shares:
            self.given[version] = self.given.get(version, 0) + items
        return shares

    def look(self) -> bool:
        """Find out which versions may be given items now; return whether that has changed."""
        warm = {version: warm_workers(model) for version, model in self.members.items()}
        for version, count in warm.items():
            if not count:
                self._released.discard(version)
            elif count >= self.route.hold.get(version, 1):
                self._released.add(version)
        self._released &= warm.keys()
        if self.route.weights:
            weights = {v: w for v, w in self.route.weights.items() if v in self._released}
        else:
            named = {v: float(n) for v, n in warm.items() if v in self._released}
            weights = {v: n for v, n in named.items() if v != self.route.shadow}
        if {v: w for v, w in weights.items() if w} == self.shares.weights:
            return False
        self.shares = Shares(weights)
        return True

    def takes(self, model: Model) -> bool:
        """Whether a version of these may be given items now."""
        return any(self.members.get(version) is model for version in self.shares.parts)

    def workers(self) -> list[Worker]:
        """Return the workers of all versions that may be given items now."""
        models = [self.members[v] for v in self.shares.parts if v in self.members]
        return [worker for model in models for worker in list(model.workers.values())]

    def all_workers(self) -> list[Worker]:
        """Return the workers of all versions."""
        return [w for model in list(self.members.values()) for w in list(model.workers.values())]

    @property
    def broken(self) -> bool:
        """Whether no worker of any version could start and none will try again."""
        gave_up = any(model.gave_up for model in self.members.values())
        return gave_up and all(w.state is WorkerState.BROKEN for w in self.all_workers())

    @property
    def trouble(self) -> str:
        """Why a worker of one of them failed to start; empty where none did."""
        return next((m.trouble for m in list(self.members.values()) if m.trouble), "")

    def why_held(self) -> str:
        """Say why items wait although there are warm workers; empty where that is not so."""
        warm = {v: n for v, m in list(self.members.items()) if (n := warm_workers(m))}
        if not warm:
            return ""
        reasons = []
        for version, count in warm.items():
            name = f"version {version!r}" if version else "workers without a version"
            if (least := self.route.hold.get(version, 1)) > count and version not in self._released:
                reasons.append(f"{name} is held back until {least} workers are warm, {count} are")
            elif self.route.weights:
                reasons.append(f"{name} has no weight in the route")
            else:
                reasons.append(f"{name} is the shadow")
        words = "; ".join(reasons)
        return f"no version of model {self.front.name!r} may be given items: {words}"

    def row(self) -> dict[str, object]:
        """Return what the snapshot tells of it."""
        parts = self.shares.parts
        versions = {
            version: {
                "model": model.name,
                "weight": self.route.weights.get(version) if self.route.weights else None,
                "share": parts.get(version, 0.0),
                "given": self.given.get(version, 0),
                "workers": len(model.workers),
                "warm": warm_workers(model),
                "hold": self.route.hold.get(version, 1),
                "held": version not in self._released,
                "queued": model.waiting,
                "out": model.out,
                "failures": model.tally.failures,
            }
            for version, model in list(self.members.items())
            if version or model.workers
        }
        return {
            "versions": versions,
            "route": self.route.table(),
            "shadow": self.shadow.row() if self.shadow is not None else None,
        }


def warm_workers(model: Model) -> int:
    """Return how many of a model's own workers are warm and not drained."""
    workers = list(model.workers.values())
    return sum(w.state is WorkerState.WARM and not w.drained for w in workers)
