"""Which items of a client leave next: those that were sent before, then its calls in turn.

    again    ▸ item item          sent to a broker that is gone, or that knows them no more
    lane 0   ▸ call call call …   all small calls, oldest first
    lane 17  ▸ call               a large one has a lane of its own

Lanes take turns, so a call of a million items neither overflows a window nor keeps a call of one
item waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from zstreamer import errors
from zstreamer.client.calls import Call
from zstreamer.client.link import ClientLink
from zstreamer.client.overload import Overload
from zstreamer.errors import ZStreamerError

OWN_LANE = 64
"""Items from which a call has a lane of its own, here and at the broker."""

TURN = 64
"""Items that one lane may send before the next lane has its turn."""

Fail: TypeAlias = Callable[[Call, int, ZStreamerError], None]


class Lanes:
    """What waits for room in the brokers' windows.

    Args:
        fail: ends an item of a call, by its index, with an error.

    Attributes:
        overload: how long full windows take.
    """

    def __init__(self, fail: Fail) -> None:
        self.overload = Overload()
        self._fail = fail
        self._lanes: dict[int, deque[Call]] = {}
        self._turn: deque[int] = deque()
        self._again: deque[tuple[Call, int]] = deque()
        self._waited = False  # calls have waited for room since the last turn

    def __len__(self) -> int:
        return len(self._again) + sum(map(len, self._lanes.values()))

    def push(self, call: Call) -> None:
        """Take a new call; those of a job have its lane already."""
        if not call.lane and len(call.payloads) >= OWN_LANE:
            call.lane = call.first
        lane = self._lanes.get(call.lane)
        if lane is None:
            lane = self._lanes[call.lane] = deque()
            self._turn.append(call.lane)
        lane.append(call)

    def push_again(self, call: Call, index: int) -> None:
        """Take an item that was sent before and must be again."""
        self._again.append((call, index))

    def clear(self) -> None:
        """Forget everything: all of it has ended."""
        self._lanes.clear()
        self._turn.clear()
        self._again.clear()

    def feed(self, now: float, links: Sequence[ClientLink]) -> None:
        """Give these links as much as their windows admit."""
        room = self._feed_again(now, links)
        while room and self._turn:
            room = self._feed_lane(now, links)
        self._waited = not room
        self.overload.full(self._waited)

    def _feed_again(self, now: float, links: Sequence[ClientLink]) -> bool:
        """Send what was sent before; whether there was room for all."""
        while self._again:
            call, index = self._again[0]
            wanted = not call.done and call.outcomes[index] is None
            if wanted and not self._add(now, links, call, index):
                return False
            self._again.popleft()
        return True

    def _feed_lane(self, now: float, links: Sequence[ClientLink]) -> bool:
        """Give the next lane its turn; whether there was room for all of it."""
        name = self._turn[0]
        lane = self._lanes[name]
        for turn in range(TURN):
            while lane and (lane[0].done or lane[0].sent == len(lane[0].payloads)):
                lane.popleft()
            if not lane:
                del self._lanes[name]
                self._turn.popleft()
                return True
            call = lane[0]
            if not (call.sent or call.lane) and call.deadline - now < self.overload.needed:
                self._refuse(now, call)
                continue
            if not self._add(now, links, call, call.sent):
                if turn:  # a window that opens item by item must not be all one lane's
                    self._turn.rotate(-1)
                return False
            call.sent += 1
            if self._waited:
                call.sent_at = now
        self._turn.rotate(-1)
        return True

    def _add(self, now: float, links: Sequence[ClientLink], call: Call, index: int) -> bool:
        """Send one item on the least busy link; whether there was room.

        Those that have a worker for it go before those that have said otherwise.
        """
        link = links[0]
        if len(links) > 1:
            link = min(links, key=lambda link: (call.model in link.notices, len(link.sent)))
        size = len(call.payloads[index])
        if size > link.max_payload:
            words = f"an item of {size} bytes exceeds the broker's limit of {link.max_payload}"
            self._fail(call, index, errors.TooLarge(words))
            return True
        if not link.room_for(size):
            return False
        link.add(now, call, index)
        return True

    def _refuse(self, now: float, call: Call) -> None:
        """Refuse a call with less time left than full windows take."""
        left = max(0.0, call.deadline - now)
        words = f"not enough time left: the client has more work queued than fits into {left:.2g} s"
        for index in range(len(call.payloads)):
            if not call.done:
                self._fail(call, index, errors.Overloaded(words, retry_after=self.overload.needed))
