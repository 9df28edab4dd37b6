"""What a REPORT gives back without an answer, and which of it a death is charged to.

A worker says LOST of the items that had begun when the model's process died, and RETURNED or
DROPPED of those that had not. A batch of one died alone; in company nobody knows who it was.
"""

from __future__ import annotations

from zstreamer.broker.lots import Lot
from zstreamer.errors import WorkerLost
from zstreamer.wire.protocol import Fate, Slot

MAX_WORDS = 500
"""Characters of a worker's words for how a model's process ended that a caller is told."""

MAX_STRIKES = 4
"""A death alone counts 2, a worker lost from sight 1: WorkerLost comes after two deaths alone,
and an item that takes whole hosts down does not go round for ever."""


class Undone:
    """What one REPORT gives back without an answer.

    Attributes:
        lost: items that had begun when the model's process died, and the size of their batch as
            the worker says, 0 where it does not.
        returned: items that are to run elsewhere.
        twice: items that would run a second time there and may not.
        died: how many had begun, whether still wanted or not.
        how: words of the worker for how the process ended.

    Args:
        begun: tickets of the REPORT that had begun before it came.
    """

    def __init__(self, begun: set[int]) -> None:
        self.lost: list[tuple[Lot, int]] = []
        self.returned: list[Lot] = []
        self.twice: list[Lot] = []
        self.died = 0
        self.how = ""
        self._begun = begun

    def add(self, item: Lot, ticket: int, slot: Slot) -> None:
        """An item has come back that is still wanted."""
        if fate_of(slot) is Fate.LOST:
            self.lost.append((item, _batch_size(slot)))
            self.how = _how(slot)
        elif item.once and ticket in self._begun:  # it ran, and its answer died with the model
            self.twice.append(item)
        else:
            self.returned.append(item)

    def alone(self) -> list[Lot]:
        """Return the lost items of which each was all that ran."""
        return [item for item, size in self.lost if (size or self.died) == 1]

    def in_company(self) -> list[Lot]:
        """Return the other lost items."""
        return [item for item, size in self.lost if (size or self.died) != 1]


_NO_OUTCOME = (Fate.LOST, Fate.RETURNED, Fate.DROPPED)


def fate_of(slot: Slot) -> Fate | None:
    """Return what became of an item that has no outcome; None where this is an outcome."""
    fate = slot[0] if type(slot) is list else None
    return Fate(fate) if isinstance(fate, int) and fate in _NO_OUTCOME else None


def may_have_run() -> WorkerLost:
    """Return the error of an item that may run only once and is not run again."""
    words = "the worker was lost while it may have run this item, which may run only once"
    return WorkerLost(words)


def struck_out(lot: Lot, how: str) -> WorkerLost | None:
    """Return the error of items that have ended too many processes; None where they may go on.

    Args:
        lot: the items.
        how: words of the worker for how the last process ended; may be empty.
    """
    if 2 * lot.deaths + lot.losses < MAX_STRIKES:
        return None
    words = f"the model's process died {lot.deaths} times while it ran this item alone"
    if how:
        words += f"; the last time it {how}"
    if lot.losses:
        words += f", and {lot.losses} times its worker was lost from sight"
    return WorkerLost(words)


def _how(lost: Slot) -> str:
    """How a model's process ended, by a LOST outcome; empty where that does not say it."""
    words = lost[1] if isinstance(lost, list) and len(lost) > 1 else ""
    return words[:MAX_WORDS] if isinstance(words, str) else ""


def _batch_size(lost: Slot) -> int:
    """How many items a batch had, some perhaps another broker's, by a LOST outcome; 0 unknown."""
    details = lost[2] if isinstance(lost, list) else None
    size = details.get("batch") if isinstance(details, dict) else None
    return size if isinstance(size, int) else 0
