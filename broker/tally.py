"""What has happened to the items of one model, as plain numbers; `metrics` shows them.

They are counted for lots and messages, not for items, and never forgotten before their model is.
"""

from __future__ import annotations

from collections import Counter, deque

from zstreamer.broker.batches import Batches
from zstreamer.errors import Code
from zstreamer.histogram import Histogram, Sizes
from zstreamer.system.logs import Event
from zstreamer.wire.protocol import Slot

_CODES = {int(code): code.name.lower() for code in Code}


WANTING = ("budget", "queue_full", "client_full", "no_worker")
"""Refusals that more workers would have spared the caller."""


class Bundles:
    """How many items the messages of each kind carry, over all models.

    Attributes:
        followed: what has happened to which items, for the log; None where nobody follows them.
    """

    __slots__ = ("answer", "followed", "report", "submit", "work")

    def __init__(self) -> None:
        self.followed: deque[Event] | None = None
        self.submit = Sizes()
        self.work = Sizes()
        self.report = Sizes()
        self.answer = Sizes()


class Tally:
    """Counts of one model.

    Attributes:
        admitted: items that were taken.
        answered: of these, those that a worker has answered, with an output or an error.
        errors: items that ended otherwise than with an output, by the error's name.
        refused: items that were not taken, by reason.
        redispatched: items that went back to the queue after a worker had them.
        failures: ends of the model's processes, and starts that failed.
        lost: workers whose connection ended although they had not said that they leave.
        stalls: times that a worker was silent for too long.
        late: times that a batch took suspiciously long.
        bytes_in, bytes_out: of payloads.
        queued: seconds from an item's arrival until a worker gets it.
        total: seconds from an item's arrival until its answer comes back from a worker.
        batches: what workers tell of their batches.
    """

    __slots__ = (
        "admitted",
        "answered",
        "batches",
        "bytes_in",
        "bytes_out",
        "errors",
        "failures",
        "late",
        "lost",
        "queued",
        "redispatched",
        "refused",
        "stalls",
        "total",
    )

    def __init__(self) -> None:
        self.admitted = 0
        self.answered = 0
        self.errors: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.redispatched = 0
        self.failures = 0
        self.lost = 0
        self.stalls = 0
        self.late = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.queued = Histogram()
        self.total = Histogram()
        self.batches = Batches()

    @property
    def came(self) -> int:
        """Items that callers have wanted answered, taken or refused for want of workers."""
        return self.admitted + sum(map(self.refused.__getitem__, WANTING))

    @property
    def failed_items(self) -> int:
        """Items that a worker has answered with an error."""
        return sum(n for name, n in list(self.errors.items()) if name.startswith(_WORKER))

    def outcomes(self) -> dict[str, int]:
        """Return how many items have ended, by how."""
        errors = dict(self.errors)
        from_workers = sum(count for name, count in errors.items() if name.startswith(_WORKER))
        found = {"ok": self.answered - from_workers}
        for name, count in errors.items():
            bare = name.removeprefix(_WORKER)
            found[bare] = found.get(bare, 0) + count
        return found

    def failed(self, slot: list[object]) -> None:
        """A worker has answered one item with an error."""
        self.errors[_WORKER + code_name(slot)] += 1


_WORKER = "worker "


def code_name(error: Slot) -> str:
    """Return what the metrics call an error in the form that it has in a message."""
    code = error[0] if isinstance(error, list) and error else None
    return _CODES.get(code, "other") if isinstance(code, int) else "other"


def outcome_name(slot: Slot) -> str:
    """Return what the metrics call an outcome."""
    return code_name(slot) if isinstance(slot, list) else "ok"
