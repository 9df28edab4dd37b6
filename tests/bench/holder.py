"""The worker of a held load: it holds what it got, and finishes k items of one client at a time."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count, groupby, islice

from tests.bench.peers import Worker

CHOICE = 16
"""Of so many clients the one whose turn it is."""


class Turns:
    """Clients in turn: were two workers to answer the same one at once, it would be one ANSWER."""

    def __init__(self) -> None:
        self._chosen: dict[bytes, int] = {}
        self._clock = count(1)

    def choose(self, owners: Iterable[bytes]) -> bytes:
        """Return the one that was chosen longest ago."""
        owner = min(owners, key=lambda owner: self._chosen.get(owner, 0))
        self._chosen[owner] = next(self._clock)
        return owner


class Holder(Worker):
    """A worker that has begun one bundle, holds others, and finishes what it is told to.

    turns: shared by all workers.
    """

    held = 0

    def __init__(
        self,
        address: str,
        size: int,
        tally: list[int],
        bundle: int,
        pool: int,
        turns: Turns,
    ) -> None:
        super().__init__(address, size, tally, bundle, pool)
        self._bundle = bundle
        self._turns = turns
        self._begun: list[int] = []
        self._of: dict[bytes, list[int]] = {}  # tickets by client, those with any
        self._full: dict[bytes, None] = {}  # clients of whom k are here, in their order

    def work(self, tickets: list[int], slots: list[bytes | None]) -> None:
        """Put the items to those of the same clients."""
        self.held += len(tickets)
        # The first eight bytes name the client; a payload in a frame of its own is alone.
        owners = [slot[:8] if slot else b"" for slot in slots]
        for owner, group in groupby(zip(owners, tickets, strict=True), lambda pair: pair[0]):
            self._put(owner, [ticket for _, ticket in group])

    def finish(self) -> bool:
        """Report the begun bundle as done and the next as begun; False where there is none."""
        if self.held < self._bundle + len(self._begun):
            return False
        done = self._begun or self._next()
        self._begun = self._next()
        self.held -= len(done)
        self.report(self._begun, done)
        return True

    def _put(self, owner: bytes, tickets: list[int]) -> None:
        mine = self._of.setdefault(owner, [])
        mine += tickets
        if len(mine) >= self._bundle:
            self._full[owner] = None

    def _next(self) -> list[int]:
        """Take k tickets of one client, or the oldest ones where no client has as many."""
        if not self._full:
            return self._mixed()
        owner = self._turns.choose(islice(self._full, CHOICE))
        return self._take(owner, self._bundle)

    def _mixed(self) -> list[int]:
        taken: list[int] = []
        for owner in list(self._of):
            taken += self._take(owner, self._bundle - len(taken))
            if len(taken) == self._bundle:
                break
        return taken

    def _take(self, owner: bytes, count: int) -> list[int]:
        mine = self._of[owner]
        taken, self._of[owner] = mine[:count], mine[count:]
        if not self._of[owner]:
            del self._of[owner]
        if len(mine) - count < self._bundle:
            self._full.pop(owner, None)
        return taken
