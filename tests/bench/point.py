"""One load on so many workers, and how they fared: what `tests.bench.fill` measures."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.load import Times
from tests.bench.report import MORE, Row

CAPACITY = 8000
"""Items a second of all workers, in full batches: 100 % load of an open loop."""

BUSY = 0.97
"""The least share of busy time under a load that fills the model."""

REACHED = 0.97
"""The share of its rate that an open loop must make, or its load is not what it is called."""

OPEN, CLOSED = "open", "closed"


@dataclass(frozen=True)
class Point:
    """One load on so many workers.

    Attributes:
        loop: OPEN or CLOSED.
        load: per cent.
        made, answered: items a second.
        busy: share of busy time in each slice of the window.
        batch: mean items of a batch.
        longer: what the batches took beyond what the model was told to take, as a share of that.
        added: of an item, beyond its batch's own time.
        latency: of an item, in all.
        cores: CPU seconds a second, by who spent them.
        errors: how many items ended in which.
    """

    loop: str
    workers: int
    load: int
    made: float
    answered: float
    busy: list[float]
    batch: float
    longer: float
    added: Times
    latency: Times
    cores: dict[str, float]
    errors: dict[str, int]

    @property
    def name(self) -> str:
        """The load in words."""
        workers = "worker" if self.workers == 1 else "workers"
        return f"{self.loop} loop, {self.workers} {workers}, {self.load} %"

    @property
    def asked(self) -> float:
        """Items a second that an open loop was to make."""
        return self.load / 100 * CAPACITY

    @property
    def reached(self) -> bool:
        """Whether the load was what it is called; a closed loop always is."""
        return self.loop == CLOSED or self.made >= REACHED * self.asked

    @property
    def judged(self) -> bool:
        """Whether the model must be busy; at just 100 %, Poisson's gaps leave it idle at times."""
        return self.reached and self.load >= (100 if self.loop == CLOSED else 150)

    def row(self) -> Row:
        """The share of busy time, with its bound where it is judged, and all else in words."""
        bound = (MORE, BUSY) if self.judged else None
        return Row(f"busy, {self.name}", self.busy, "share", bound=bound, told=self.words())

    def words(self) -> str:
        """All other figures, in one line."""
        short = "" if self.reached else f" of {self.asked:,.0f} (not reached)"
        spent = ", ".join(f"{who} {cores:.2f}" for who, cores in self.cores.items())
        ends = "".join(f", {count:,d} {name}" for name, count in self.errors.items())
        return (
            f"{self.made:,.0f} items/s made{short}, {self.answered:,.0f} answered"
            f"{ends}; batches of {self.batch:.1f}, {self.longer:.1%} longer than told; added "
            f"{self.added.median:.1f} ms, 99 % below {self.added.most:.1f} ms; cores: {spent}"
        )
