"""The items that wait for a worker of one model.

    priority 5   returned ▸ ···
                 tenant "" ▸ client A ▸ lane 0 ▸ lot lot    A and B take turns of as many items
                             client B ▸ lane 0 ▸ lot        as a batch, and within B its lanes do
                                        lane 7 ▸ lot lot …
                 tenant X  ▸ client C ▸ lane 0 ▸ lot        X's turns are as long as its weight says
    priority 0   …

Higher priorities first; then fair between tenants, between a tenant's clients and, within a
client, between its lanes (a lane is one large call, or all of its small ones); then oldest first.
Items that come back from a worker have waited once already and go before the others of their
priority.

Turns are those of FQ-CoDel (RFC 8290, section 4.2): those that had nothing waiting go before those
who have had a turn, so one item never waits for the large calls of many others; and having
used that up it is counted among those for a round, even if it has nothing left. A turn is worth
several items because those of one client are cheaper together, on their way there and back.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from zstreamer.broker.lots import Lot
from zstreamer.broker.tenants import Tenant

if TYPE_CHECKING:
    from zstreamer.broker.clients import ClientRecord

QUANTUM, MOST = 16, 64
"""Items of one turn, or fewer where batches are smaller. A batch then holds items of one client,
and one message answers it. Longer turns would make others wait and save nothing more."""


class _Waiting(Protocol):
    items: int
    credit: int  # what is left of its turn

    def take(self, count: int, out: list[Lot], quantum: int) -> int:
        """Move up to ``count`` items into ``out``, in turns of ``quantum``; return how many."""


class _Lane:
    """Lots in the order in which they came; any of them may leave early."""

    __slots__ = ("credit", "items", "lots")

    def __init__(self) -> None:
        self.credit = 0
        self.items = 0
        self.lots: OrderedDict[Lot, None] = OrderedDict()

    def push(self, lot: Lot) -> None:
        self.lots[lot] = None
        self.items += len(lot.ids)

    def take(self, count: int, out: list[Lot], quantum: int = 0) -> int:  # noqa: ARG002  # as in _Turns
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
Key = TypeVar("Key")


class _Turns(Generic[Key, Child]):
    """Several of a kind that are served in turn.

    even: their turns are alike.
    """

    even = True
    __slots__ = ("_fresh", "_served", "children", "credit", "items", "new")

    def __init__(self, new: Callable[[], Child]) -> None:
        self.new = new
        self.credit = 0
        self.items = 0
        self.children: dict[Key, Child] = {}
        self._fresh: deque[Key] = deque()
        self._served: deque[Key] = deque()

    def child(self, key: Key) -> Child:
        child = self.children.get(key)
        if child is None:
            child = self.children[key] = self.new()
            self._fresh.append(key)
        return child

    def take(self, count: int, out: list[Lot], quantum: int) -> int:
        count = left = min(count, self.items)
        while left:
            turn = self._fresh or self._served
            key = turn[0]
            child = self.children[key]
            if not child.credit:
                child.credit = quantum if self.even else self.turn_of(key, quantum)
            taken = child.take(min(child.credit, left), out, quantum)
            child.credit -= taken
            left -= taken
            if child.items and child.credit:
                break  # the rest of its turn is for the next time
            child.credit = 0
            turn.popleft()
            if child.items or turn is self._fresh:
                self._served.append(key)
            else:
                del self.children[key]
        self.items -= count
        return count

    def turn_of(self, key: Key, quantum: int) -> int:
        """Return the items of a turn of this one; asked where they are not `even`."""
        raise NotImplementedError

    def forget_if_empty(self, key: Key) -> None:
        if not self.children[key].items:
            del self.children[key]
            (self._fresh if key in self._fresh else self._served).remove(key)


class _Client(_Turns[int, _Lane]):
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


class _Clients(_Turns[int, _Client]):
    """The clients of one tenant."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_Client)

    def push(self, lot: Lot) -> None:
        self.child(lot.client.id).push(lot)
        self.items += len(lot.ids)

    def give_up(self, lot: Lot, ids: set[int]) -> int:
        size = self.children[lot.client.id].give_up(lot, ids)
        self.items -= len(ids)
        self.forget_if_empty(lot.client.id)
        return size


class _Tenants(_Turns[Tenant, _Clients]):
    """Tenants take turns by their weights."""

    even = False
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_Clients)

    def turn_of(self, key: Tenant, quantum: int) -> int:
        return key.turn(quantum)

    def take(self, count: int, out: list[Lot], quantum: int) -> int:
        if len(self.children) > 1:
            return super().take(count, out, quantum)
        for key in self.children:  # the only one need not take turns
            child = self.children[key]
            count = child.take(count, out, quantum)
            self.items -= count
            self.forget_if_empty(key)
            return count
        return 0


class _Level:
    """Items of one priority."""

    __slots__ = ("returned", "tenants")

    def __init__(self) -> None:
        self.returned = _Lane()
        self.tenants = _Tenants()

    @property
    def items(self) -> int:
        return self.returned.items + self.tenants.items

    def push(self, lot: Lot) -> None:
        self.tenants.child(lot.client.tenant).push(lot)
        self.tenants.items += len(lot.ids)

    def take(self, count: int, out: list[Lot], quantum: int) -> int:
        taken = self.returned.take(count, out) if self.returned.items else 0
        if taken < count:
            taken += self.tenants.take(count - taken, out, quantum)
        return taken

    def give_up(self, lot: Lot, ids: set[int]) -> int:
        if lot in self.returned.lots:
            return self.returned.give_up(lot, ids)
        tenant = lot.client.tenant
        size = self.tenants.children[tenant].give_up(lot, ids)
        self.tenants.items -= len(ids)
        self.tenants.forget_if_empty(tenant)
        return size


class FairQueue:
    """Waiting items of one model; see the module's picture.

    Items are put in their places only when somebody must wait: as long as all that has come
    can go at once there is no order to keep.

    Attributes:
        turn: items that a client or a lane may have served before the next one is.
    """

    def __init__(self) -> None:
        self.items = 0
        self.turn = QUANTUM
        self._arrived: list[Lot] = []
        self._arrived_items = 0
        self._levels: dict[int, _Level] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return self.items

    def push(self, lot: Lot) -> None:
        """Add items at the end of their client's lane."""
        count = len(lot.ids)
        self._arrived.append(lot)
        self._arrived_items += count
        self.items += count

    def push_returned(self, lot: Lot) -> None:
        """Add items that come back, before those that have not been out."""
        self._level(lot.priority).returned.push(lot)
        self.items += len(lot.ids)

    def fit(self, batch_size: int) -> None:
        """Make turns as long as this batch, within the limits."""
        self.turn = min(max(QUANTUM, batch_size), MOST)

    def take(self, count: int) -> list[Lot]:
        """Take out the next ``count`` items, or all where there are fewer."""
        if count >= self.items and not self._order:
            out, self._arrived = self._arrived, []
            self.items = self._arrived_items = 0
            return out
        self._settle()
        out = []
        taken = 0
        # Where all of it is taken, what came together may stay together.
        quantum = self.turn if count < self.items else self.items
        while taken < count and self._order:
            level = self._levels[self._order[0]]
            taken += level.take(count - taken, out, quantum)
            if not level.items:
                del self._levels[self._order.pop(0)]
        self.items -= taken
        return out

    def give_up(self, lot: Lot, ids: set[int]) -> int:
        """Forget some items of a queued lot; return their bytes."""
        self._settle()
        self.items -= len(ids)
        level = self._levels[lot.priority]
        size = level.give_up(lot, ids)
        if not level.items:
            del self._levels[lot.priority]
            self._order.remove(lot.priority)
        return size

    def at_most_ahead(self, client: ClientRecord, priority: int, adds: int) -> int:
        """Return a number that `ahead` does not exceed, without a look at every client."""
        count = self._arrived_items
        for level_priority in self._order:
            if level_priority < priority:
                break
            level = self._levels[level_priority]
            count += level.items
            clients = level.tenants.children.get(client.tenant)
            if level_priority == priority and clients is not None and clients.items:
                child = clients.children.get(client.id)
                own = child.items if child is not None else 0
                adds += sum([len(lot.ids) for lot in self._arrived if lot.client is client])
                shares = len(clients.children) * self._turns(own + adds)
                count -= max(0, clients.items - own - shares)
        return count

    def ahead(self, client: ClientRecord, priority: int, adds: int = 1) -> int:
        """Return about how many items will be served before the last of those that ``client``
        adds now, besides these.
        """
        self._settle()
        count = 0
        for level_priority, level in self._levels.items():
            if level_priority > priority:
                count += level.items
            elif level_priority == priority:
                count += level.returned.items + self._ahead_here(level, client, adds)
        return count

    def _ahead_here(self, level: _Level, client: ClientRecord, adds: int) -> int:
        tenants = level.tenants.children
        own_tenant = tenants.get(client.tenant)
        clients = own_tenant.children if own_tenant is not None else {}
        own = clients[client.id].items if client.id in clients else 0
        share = self._turns(own + adds)
        count = own + sum(min(each.items, share) for id, each in clients.items() if id != client.id)
        rounds = -(-(count + adds) // client.tenant.turn(self.turn))
        others = (
            min(each.items, rounds * tenant.turn(self.turn))
            for tenant, each in tenants.items()
            if tenant is not client.tenant
        )
        return count + sum(others)

    def oldest(self) -> tuple[float, int]:
        """Return when the item came that has waited longest, in monotonic seconds (infinite where
        none waits), and how many lots had to be looked at.
        """
        firsts = self._arrived[:1]
        for level in self._levels.values():
            firsts += level.returned.lots  # they do not lie in the order of their arrival
            for tenant in level.tenants.children.values():
                for client in tenant.children.values():
                    lanes = client.children.values()
                    firsts += (next(iter(lane.lots)) for lane in lanes if lane.lots)
        return min((lot.arrived for lot in firsts), default=math.inf), len(firsts)

    def drain(self) -> list[Lot]:
        """Take out all items, in order."""
        return self.take(self.items)

    def _settle(self) -> None:
        """Put what has arrived in its place."""
        for lot in self._arrived:
            self._level(lot.priority).push(lot)
        self._arrived.clear()
        self._arrived_items = 0

    def _level(self, priority: int) -> _Level:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
            self._order = sorted(self._levels, reverse=True)
        return level

    def _turns(self, items: int) -> int:
        """How many items of another client may be served before these are."""
        return -(-items // self.turn) * self.turn
