"""The items that wait for a worker of one model.

    priority 5   returned ▸ ···
                 client A ▸ lane 0 ▸ lot lot lot         A and B get an equal share of what is
                 client B ▸ lane 0 ▸ lot                 taken, and within B each lane does
                            lane 7 ▸ lot lot …
    priority 0   …

Higher priorities first; then fair between clients and, within a client, between its lanes (a
lane is one large call, or all of its small ones); then oldest first. Items that come back from
a worker have waited once already and go before the others of their priority.

Shares are cut from lots, not dealt out item by item: the items that one worker gets are the
same, and those of one client stay together, on their way there and back.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from broker.lots import Lot


class _Waiting(Protocol):
    items: int

    def take(self, count: int, out: list[Lot]) -> int:
        """Move up to ``count`` items into ``out``; return how many."""


class _Lane:
    """Lots in the order in which they came; any of them may leave early."""

    __slots__ = ("items", "lots")

    def __init__(self) -> None:
        self.items = 0
        self.lots: OrderedDict[Lot, None] = OrderedDict()

    def push(self, lot: Lot) -> None:
        self.lots[lot] = None
        self.items += len(lot.ids)

    def take(self, count: int, out: list[Lot]) -> int:
        left = count
        while left and self.lots:
            lot = next(iter(self.lots))
            if len(lot.ids) > left:
                lot = lot.take(left)
            else:
                del self.lots[lot]
            out.append(lot)
            left -= len(lot.ids)
        self.items -= count - left
        return count - left

    def give_up(self, lot: Lot, ids: set[int]) -> int:
        """Forget these items; return their bytes."""
        size = lot.drop(ids)
        if not lot.ids:
            del self.lots[lot]
        self.items -= len(ids)
        return size


Child = TypeVar("Child", bound=_Waiting)


class _Turns(Generic[Child]):
    """Several of a kind, each of which gets an equal share; none of them is ever empty."""

    __slots__ = ("_turn", "children", "items", "new")

    def __init__(self, new: Callable[[], Child]) -> None:
        self.new = new
        self.items = 0
        self.children: dict[int, Child] = {}
        self._turn: deque[int] = deque()

    def child(self, key: int) -> Child:
        child = self.children.get(key)
        if child is None:
            child = self.children[key] = self.new()
            self._turn.append(key)
        return child

    def take(self, count: int, out: list[Lot]) -> int:
        taken = 0
        while taken < count and self._turn:
            share = max(1, (count - taken) // len(self._turn))
            for _ in range(len(self._turn)):
                taken += self._take_one(min(share, count - taken), out)
                if taken == count:
                    break
        self.items -= taken
        return taken

    def _take_one(self, count: int, out: list[Lot]) -> int:
        key = self._turn[0]
        child = self.children[key]
        taken = child.take(count, out)
        if not child.items:
            del self.children[key]
            self._turn.popleft()
        elif len(self._turn) > 1:
            self._turn.rotate(-1)
        return taken

    def forget_if_empty(self, key: int) -> None:
        if not self.children[key].items:
            del self.children[key]
            self._turn.remove(key)


class _Client(_Turns[_Lane]):
    """The lanes of one client."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_Lane)

    def push(self, lot: Lot) -> None:
        self.child(lot.lane).push(lot)
        self.items += len(lot.ids)

    def give_up(self, lot: Lot, ids: set[int]) -> int:
        size = self.children[lot.lane].give_up(lot, ids)
        self.items -= len(ids)
        self.forget_if_empty(lot.lane)
        return size


class _Level:
    """Items of one priority."""

    __slots__ = ("clients", "returned")

    def __init__(self) -> None:
        self.returned = _Lane()
        self.clients: _Turns[_Client] = _Turns(_Client)

    @property
    def items(self) -> int:
        return self.returned.items + self.clients.items

    def push(self, lot: Lot) -> None:
        self.clients.child(lot.client.id).push(lot)
        self.clients.items += len(lot.ids)

    def take(self, count: int, out: list[Lot]) -> int:
        taken = self.returned.take(count, out) if self.returned.items else 0
        if taken < count:
            taken += self.clients.take(count - taken, out)
        return taken

    def give_up(self, lot: Lot, ids: set[int]) -> int:
        if lot in self.returned.lots:
            return self.returned.give_up(lot, ids)
        size = self.clients.children[lot.client.id].give_up(lot, ids)
        self.clients.items -= len(ids)
        self.clients.forget_if_empty(lot.client.id)
        return size


class FairQueue:
    """Waiting items of one model; see the module's picture."""

    def __init__(self) -> None:
        self.items = 0
        self._levels: dict[int, _Level] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return self.items

    def push(self, lot: Lot) -> None:
        """Add items at the end of their client's lane."""
        self._level(lot.priority).push(lot)
        self.items += len(lot.ids)

    def push_returned(self, lot: Lot) -> None:
        """Add items that come back, before those that have not been out."""
        self._level(lot.priority).returned.push(lot)
        self.items += len(lot.ids)

    def take(self, count: int) -> list[Lot]:
        """Take out the next ``count`` items, or all where there are fewer."""
        out: list[Lot] = []
        taken = 0
        while taken < count and self._order:
            level = self._levels[self._order[0]]
            taken += level.take(count - taken, out)
            if not level.items:
                del self._levels[self._order.pop(0)]
        self.items -= taken
        return out

    def give_up(self, lot: Lot, ids: set[int]) -> int:
        """Forget some items of a queued lot; return their bytes."""
        self.items -= len(ids)
        return self._levels[lot.priority].give_up(lot, ids)

    def at_most_ahead(self, client: int, priority: int, adds: int) -> int:
        """Return a number that `ahead` does not exceed, without a look at every client."""
        count = 0
        for level_priority in self._order:
            if level_priority < priority:
                break
            level = self._levels[level_priority]
            count += level.items
            if level_priority == priority and (clients := level.clients).items:
                child = clients.children.get(client)
                own = child.items if child is not None else 0
                shares = len(clients.children) * (own + adds)
                count -= max(0, clients.items - own - shares)
        return count

    def ahead(self, client: int, priority: int, adds: int = 1) -> int:
        """Return about how many items will be served before the last of those that ``client``
        adds now, besides these.
        """
        count = 0
        for level_priority, level in self._levels.items():
            if level_priority > priority:
                count += level.items
            elif level_priority == priority:
                clients = level.clients.children
                own = clients[client].items if client in clients else 0
                others = (each.items for name, each in clients.items() if name != client)
                count += level.returned.items + own
                count += sum(min(items, own + adds) for items in others)
        return count

    def drain(self) -> list[Lot]:
        """Take out all items, in order."""
        return self.take(self.items)

    def _level(self, priority: int) -> _Level:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
            self._order = sorted(self._levels, reverse=True)
        return level
