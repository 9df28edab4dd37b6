"""The items that wait for a worker of one model.

    priority 5   returned ▸ ···
                 client A ▸ lane 0 ▸ item item item       one item of A, one of B, one of A …
                 client B ▸ lane 0 ▸ item                 and within B one of each lane in turn
                            lane 7 ▸ item item item …
    priority 0   …

Higher priorities first; then fair between clients and, within a client, between its lanes (a
lane is one large call, or all of its small ones); then oldest first. Items that come back from
a worker have waited once already and go before the others of their priority.
"""

from __future__ import annotations

from collections import deque

from broker.items import Item, ItemState


class _Turns:
    """Lanes of one client, served in turn."""

    __slots__ = ("items", "lanes", "turn")

    def __init__(self) -> None:
        self.items = 0
        self.lanes: dict[int, deque[Item]] = {}
        self.turn: deque[int] = deque()

    def push(self, item: Item) -> None:
        lane = self.lanes.get(item.lane)
        if lane is None:
            lane = self.lanes[item.lane] = deque()
            self.turn.append(item.lane)
        lane.append(item)
        self.items += 1

    def pop(self) -> Item:
        name = self.turn[0]
        lane = self.lanes[name]
        item = lane.popleft()
        self.items -= 1
        if not lane:
            del self.lanes[name]
            self.turn.popleft()
        elif len(self.turn) > 1:
            self.turn.rotate(-1)
        return item


class _Level:
    """Items of one priority."""

    __slots__ = ("clients", "returned", "turn")

    def __init__(self) -> None:
        self.returned: deque[Item] = deque()
        self.clients: dict[int, _Turns] = {}
        self.turn: deque[int] = deque()

    def push(self, item: Item) -> None:
        client = item.client.id
        turns = self.clients.get(client)
        if turns is None:
            turns = self.clients[client] = _Turns()
            self.turn.append(client)
        turns.push(item)

    def pop(self) -> Item | None:
        if self.returned:
            return self.returned.popleft()
        if not self.turn:
            return None
        client = self.turn[0]
        turns = self.clients[client]
        item = turns.pop()
        if not turns.items:
            del self.clients[client]
            self.turn.popleft()
        elif len(self.turn) > 1:
            self.turn.rotate(-1)
        return item


class FairQueue:
    """Waiting items of one model; see the module's picture.

    Given-up items stay in place, empty, until they are met or outnumber the others: taking
    one out of the middle of a deque would cost a scan.
    """

    def __init__(self) -> None:
        self.items = 0
        self._levels: dict[int, _Level] = {}
        self._order: list[int] = []
        self._given_up = 0

    def __len__(self) -> int:
        return self.items

    def push(self, item: Item) -> None:
        """Add an item at the end of its client's lane."""
        item.state = ItemState.QUEUED
        self._level(item.priority).push(item)
        self.items += 1

    def push_returned(self, item: Item) -> None:
        """Add an item that comes back, before those that have not been out."""
        item.state = ItemState.QUEUED
        self._level(item.priority).returned.append(item)
        self.items += 1

    def pop(self) -> Item | None:
        """Return the next item, or None where nothing waits."""
        while self._order:
            item = self._levels[self._order[0]].pop()
            if item is None:
                del self._levels[self._order.pop(0)]
            elif item.state is ItemState.QUEUED:
                self.items -= 1
                return item
            else:
                self._given_up -= 1
        return None

    def give_up(self, item: Item) -> None:
        """Forget a queued item."""
        item.state = ItemState.ENDED
        self.items -= 1
        self._given_up += 1
        if self._given_up > 64 + self.items:
            self._compact()

    def ahead(self, client: int, priority: int, adds: int = 1) -> int:
        """Return about how many items will be served before the last of those that ``client``
        adds now, besides these.
        """
        count = 0
        for level_priority, level in self._levels.items():
            if level_priority < priority:
                continue
            count += len(level.returned)
            if level_priority > priority:
                queued = sum(turns.items for turns in level.clients.values())
            else:
                own = level.clients[client].items if client in level.clients else 0
                others = (t.items for name, t in level.clients.items() if name != client)
                queued = own + sum(min(items, own + adds) for items in others)
            count += queued
        return count

    def drain(self) -> list[Item]:
        """Take out all items, in order."""
        items = []
        while (item := self.pop()) is not None:
            items.append(item)
        return items

    def _level(self, priority: int) -> _Level:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
            self._order = sorted(self._levels, reverse=True)
        return level

    def _compact(self) -> None:
        for level in self._levels.values():
            level.returned = deque(i for i in level.returned if i.state is ItemState.QUEUED)
            waiting = [
                item
                for client in level.turn
                for lane in level.clients[client].turn
                for item in level.clients[client].lanes[lane]
                if item.state is ItemState.QUEUED
            ]
            level.clients.clear()
            level.turn.clear()
            for item in waiting:
                level.push(item)
        self._given_up = 0
