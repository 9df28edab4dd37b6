"""The batches that a model's process has begun: one, or two where it claimed the next ahead.

A model on a device of its own may start a batch while the one before computes. Only plans that
cannot grow any more may be claimed so (`zstreamer.batching.FULL`), never suspects, and nothing
while suspects run: a batch that is to run alone is alone in its process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from zstreamer.worker import pipe


class Running:
    """What one process has claimed and not answered.

    Attributes:
        ahead: whether its model can start a batch while the one before computes.
    """

    def __init__(self) -> None:
        self.ahead = False
        self._batches: deque[list[int]] = deque()
        self._plans: dict[int, tuple[bool, bool]] = {}
        self._alone = False

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def first(self) -> Sequence[int]:
        """The items of the batch that computes now; none where nothing runs."""
        return self._batches[0] if self._batches else ()

    @property
    def last(self) -> int:
        """How many items the batch has that will end last; 0 where nothing runs."""
        return len(self._batches[-1]) if self._batches else 0

    def may_be_claimed_ahead(self, full: bool, alone: bool) -> bool:
        """Whether a plan may begin before what runs has ended."""
        return self.ahead and full and not alone and not (self._batches and self._alone)

    def planned(self, plan: pipe.Plan, alone: bool) -> None:
        """The process is being told of this plan."""
        self._plans[plan.serial] = plan.ahead, alone

    def begun(self, claim: pipe.Claim) -> None:
        """A batch begins."""
        ahead, self._alone = self._plans.get(claim.serial, (False, False))
        self._plans = {s: each for s, each in self._plans.items() if s > claim.serial}
        if not ahead:
            # Claimed by a free model: what began before has ended, though its answers may follow.
            self._batches.clear()
        if claim.ids:
            self._batches.append(list(claim.ids))

    def ended(self, ids: Sequence[int]) -> bool:
        """Outcomes have come; return whether they are those of a batch that ran."""
        for batch in self._batches:
            if ids and batch[0] == ids[0]:
                self._batches.remove(batch)
                return True
        return False

    def suspects(self) -> dict[int, int]:
        """Return the items that may have ended the process, each with how many there are.

        Two batches at once are each other's company: nobody was alone.
        """
        ids = [id for batch in self._batches for id in batch]
        return dict.fromkeys(ids, len(ids))

    def clear(self) -> None:
        """The process has ended."""
        self._batches.clear()
        self._plans.clear()
        self._alone = False
