"""How long a full window takes, and so what a call that waits for room must still have left.

While its window is full a client's calls wait in the client, where no broker can see them to
refuse them. If each were sent when its turn comes, however late, most would be answered after
their budgets under a steady overload: all workers are busy, and no caller gets an answer.

What counts is the shortest time that an item took of late, since a stall (a worker that is
restarted, say) lengthens the times of all that it met, but not those of the window before. And
only items that were sent into the last room of a window count: others say nothing of full ones.
"""

from __future__ import annotations

import math

MARGIN = 1.5
"""Under overload calls wait as long as this allows; variation must fit into the rest."""


class Overload:
    """The shortest time from sending to answer, over the latest one to two windows of answers."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._before = math.inf
        self._least = math.inf
        self._left = 0

    def full(self, full: bool) -> None:
        """Say whether calls wait for room."""
        if not full:
            self._forget()

    def answered(self, items: int, seconds: float, open_items: int) -> None:
        """Answers have come.

        Args:
            items: how many.
            seconds: what the latest of them took.
            open_items: how many are still out: a window of answers later they are all in.
        """
        self._least = min(self._least, seconds)
        self._left -= items
        if self._left <= 0:
            self._before, self._least, self._left = self._least, math.inf, open_items

    @property
    def needed(self) -> float:
        """Seconds that a call must have left when it is sent; 0 where that is not known."""
        if self._before == math.inf:
            return 0.0
        return MARGIN * min(self._before, self._least)
