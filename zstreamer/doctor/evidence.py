"""A broker's snapshots over some seconds, as the figures that the rules need. Pure.

Counts in a snapshot run since a process's start; what a rule looks at is how they have grown. A
broker or worker of another release may leave any of them out: then it counts as 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any, cast

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One snapshot.

    Attributes:
        at: seconds since 1970 at which it came, by this machine's clock.
        took: seconds from the question to the answer.
        snapshot: as `zstreamer.client.status.fetch` returns it.
    """

    at: float
    took: float
    snapshot: Row


class Worker:
    """One worker: how it is now, and how its counts have grown."""

    def __init__(self, first: Row | None, last: Row) -> None:
        self.first = first if first is not None else last
        self.last = last

    @property
    def name(self) -> str:
        """Its name for `zstreamer drain`."""
        return f"{self.last.get('host') or '-'}:{self.last.get('pid') or '-'}"

    @property
    def state(self) -> str:
        """As the broker sees it: warm, booting, late, stalled, drained …"""
        return str(self.last.get("state"))

    @property
    def warm(self) -> bool:
        """Whether it takes items."""
        return self.state == "warm"

    def value(self, key: str) -> float:
        """Return a figure as it is now; 0 where it is not known."""
        return number(self.last.get(key))

    def grown(self, key: str) -> float:
        """Return by how much a count has grown."""
        return max(0.0, number(self.last.get(key)) - number(self.first.get(key)))

    @property
    def seconds(self) -> float:
        """Seconds between its first and last word on itself, by its own clock; 0 for one word."""
        return self.grown("time")

    @property
    def busy(self) -> float:
        """Share of the time in which its model ran a batch."""
        return min(1.0, self.grown("busy") / self.seconds) if self.seconds else 0.0

    @property
    def batch_size(self) -> int:
        """Most items of its batches."""
        return int(self.value("batch_size"))

    @property
    def batch_seconds(self) -> float:
        """Seconds that its mean batch takes, as its speed was measured."""
        items = self.grown("items") / self.grown("batches") if self.grown("batches") else 0.0
        return (self.value("beta_ms") + self.value("alpha_ms") * items) / 1000

    @property
    def closed(self) -> dict[str, float]:
        """Batches by why they were no larger."""
        return _grown_counts(self.first.get("closed"), self.last.get("closed"))


class Model:
    """One model over the time looked at.

    Args:
        name: the model's.
        rows: what each snapshot says of it, oldest first; at least one.
        seconds: between the first and the last.
    """

    def __init__(self, name: str, rows: Sequence[Row], seconds: float) -> None:
        self.name = name
        self.rows = rows
        self.last = rows[-1]
        self.seconds = seconds

    @cached_property
    def workers(self) -> list[Worker]:
        """Its workers now, each since the first snapshot in which it spoke of itself."""
        first: dict[object, Row] = {}
        for row in self.rows:
            for worker in _rows(row.get("workers")):
                before = first.setdefault(worker.get("id"), worker)
                if "time" in worker and "time" not in before:
                    first[worker.get("id")] = worker
        return [Worker(first.get(each.get("id")), each) for each in _rows(self.last.get("workers"))]

    @property
    def warm(self) -> list[Worker]:
        """Those that take items."""
        return [worker for worker in self.workers if worker.warm]

    def grown(self, key: str) -> float:
        """Return by how much a count of the broker has grown."""
        return max(0.0, number(self.last.get(key)) - number(self.rows[0].get(key)))

    def rate(self, key: str) -> float:
        """Return the same for each second."""
        return self.grown(key) / self.seconds if self.seconds else 0.0

    @property
    def queued(self) -> list[float]:
        """Items in the broker's queue, in each snapshot."""
        return [number(row.get("queued")) for row in self.rows]

    @cached_property
    def open_peak(self) -> int:
        """Most items that were open at once, of those moments that were looked at."""
        return int(max(map(_open, self.rows)))

    @property
    def open_mean(self) -> float:
        """Mean of the items open at once, by Little's law: their rate times their latency."""
        return self.rate("seconds")

    @property
    def batches(self) -> float:
        """Batches that have begun."""
        return sum(worker.grown("batches") for worker in self.workers)

    @property
    def mean_batch(self) -> float:
        """Items of the mean batch; 0 where none has begun."""
        return sum(w.grown("items") for w in self.workers) / self.batches if self.batches else 0.0

    @property
    def batch_size(self) -> int:
        """Most items of a batch."""
        return int(number(self.last.get("batch_size")))

    @property
    def busy(self) -> float:
        """Share of the time in which its warm workers ran a batch, on average."""
        shares = [worker.busy for worker in self.warm if worker.seconds]
        return sum(shares) / len(shares) if shares else 0.0

    @property
    def closed(self) -> dict[str, float]:
        """Shares of the batches by why they were no larger."""
        total: dict[str, float] = {}
        for worker in self.workers:
            for why, count in worker.closed.items():
                total[why] = total.get(why, 0.0) + count
        all_of_them = sum(total.values())
        return {why: count / all_of_them for why, count in total.items()} if all_of_them else {}


class Broker:
    """One broker over the time looked at.

    Args:
        address: where its clients reach it.
        samples: oldest first; at least one.
    """

    def __init__(self, address: str, samples: Sequence[Sample]) -> None:
        self.address = address
        self.samples = samples

    @property
    def last(self) -> Row:
        """What it says of itself now."""
        return _row(self.samples[-1].snapshot.get("broker"))

    @cached_property
    def seconds(self) -> float:
        """Seconds between the first and the last snapshot, by its own clock."""
        first = _row(self.samples[0].snapshot.get("broker"))
        return max(0.0, number(self.last.get("uptime")) - number(first.get("uptime")))

    @property
    def took(self) -> float:
        """Seconds that it usually takes to answer."""
        return median(each.took for each in self.samples)

    @cached_property
    def models(self) -> dict[str, Model]:
        """Its models by name."""
        found = {}
        for name in _row(self.samples[-1].snapshot.get("models")):
            tables = (_row(each.snapshot.get("models")) for each in self.samples)
            found[name] = Model(name, [_row(t[name]) for t in tables if name in t], self.seconds)
        return found

    @property
    def sessions(self) -> list[Row]:
        """Its busiest clients now, each with the most items that it had open."""
        found: list[Row] = []
        for now in _rows(self.last.get("sessions")):
            seen = [each for each in self._sessions() if each.get("id") == now.get("id")]
            peak = max(number(each.get("peak")) for each in seen)
            sent = number(now.get("sent")) - min(number(each.get("sent")) for each in seen)
            most = max(number(each.get("bytes")) for each in seen)
            found.append({**now, "peak": peak, "sent": sent, "bytes": most})
        return found

    def _sessions(self) -> Iterator[Row]:
        for each in self.samples:
            yield from _rows(_row(each.snapshot.get("broker")).get("sessions"))


def number(value: object) -> float:
    """Return a figure of a snapshot; 0 where it is none."""
    return float(value) if isinstance(value, int | float) else 0.0


def _row(value: object) -> Row:
    return value if isinstance(value, Mapping) else {}


def _rows(value: object) -> list[Row]:
    return (
        [cast("Row", each) for each in value if isinstance(each, Mapping)]
        if isinstance(value, list)
        else []
    )


def _open(row: Row) -> float:
    held = (number(w.get("waiting")) + number(w.get("running")) for w in _rows(row.get("workers")))
    return number(row.get("queued")) + sum(held)


def _grown_counts(first: object, last: object) -> dict[str, float]:
    before = _row(first)
    return {key: number(n) - number(before.get(key)) for key, n in _row(last).items()}
