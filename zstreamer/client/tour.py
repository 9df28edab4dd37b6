"""Items that one broker did not take and that are offered to the others.

    refused by A ──> B, C … at once ──> refused by all: its caller hears why
                          │                  └─ or it waits at one whose worker may yet come
                          └─ those that are out of reach, while they may come back

A client of several brokers asks each of them to take an item only while a worker is ready (flag
READY). Only when none does, the item is left to wait at one of them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from zstreamer import errors
from zstreamer.client.calls import Call
from zstreamer.client.link import ClientLink
from zstreamer.errors import ModelNotFound, NoWorker, Overloaded, ZStreamerError
from zstreamer.wire.link import LinkState

Start: TypeAlias = tuple[ClientLink, int]
"""A broker, and which start of it: one that was restarted is asked again."""

Fail: TypeAlias = Callable[[Call, int, ZStreamerError], None]


class Route(NamedTuple):
    """What items that were refused in the same way have in common.

    Attributes:
        model: what they are for.
        asked: brokers that have refused them.
        may_wait: those among them where a worker may yet come.
        patient: no broker has a ready worker, so they wait for one.
        busy: a broker was overloaded; the caller is told so at once.
    """

    model: str
    asked: frozenset[Start] = frozenset()
    may_wait: frozenset[Start] = frozenset()
    patient: bool = False
    busy: bool = False

    def without(self, start: Start) -> Route:
        """Return the route of the same items now that this broker would take them."""
        asked, may_wait = self.asked - {start}, self.may_wait - {start}
        return self._replace(asked=asked, may_wait=may_wait, patient=False)


class Refused(NamedTuple):
    """One item that was refused, and what each broker has said of it last."""

    route: Route
    said: dict[ClientLink, ZStreamerError]


class Tours:
    """The items of one client that were refused, and where to.

    Args:
        fail: ends an item of a call, by its index, with an error.
        patience: seconds for which a broker that is out of reach may come back.

    Attributes:
        wake_at: monotonic seconds at which `feed` has something to decide.
    """

    def __init__(self, fail: Fail, patience: float) -> None:
        self._fail = fail
        self._patience = patience
        self._waiting: dict[Route, deque[tuple[Call, int]]] = {}
        self._refused: dict[int, Refused] = {}
        self._parked: set[int] = set()  # items that wait for a worker at a broker
        self.wake_at = math.inf

    def __len__(self) -> int:
        return len(self._refused) + sum(map(len, self._waiting.values()))

    def clear(self) -> None:
        """Forget everything: all of it has ended."""
        self._waiting.clear()
        self._refused.clear()
        self._parked.clear()
        self.wake_at = math.inf

    def forget(self, call: Call) -> None:
        """Forget who has refused the items of a call."""
        if self._refused:
            for id in range(call.first, call.first + len(call.outcomes)):
                self._refused.pop(id, None)
                self._parked.discard(id)

    def start_again(self, id: int) -> None:
        """Send an item as if no broker had been asked: its broker was lost with it."""
        self._refused.pop(id, None)
        self._parked.discard(id)

    def error_of(self, call: Call, links: Sequence[ClientLink]) -> ZStreamerError | None:
        """Return why an open item of this call was refused by all that can be asked, if it was."""
        for index, outcome in enumerate(call.outcomes):
            refused = self._refused.get(call.first + index) if outcome is None else None
            if refused is not None and not _takers(links, refused.route):
                return _most_telling(refused.said)
        return None

    def refused(self, link: ClientLink, call: Call, index: int, error: ZStreamerError) -> None:
        """A broker did not take an item."""
        self._parked.discard(call.first + index)
        before = self._refused.get(call.first + index)
        route = before.route if before else Route(call.model)
        start = link, link.epoch
        may_wait = route.may_wait
        if isinstance(error, NoWorker) and not error.final and not route.patient:
            may_wait |= {start}
        busy = route.busy or (isinstance(error, Overloaded) and not link.draining)
        route = Route(call.model, route.asked | {start}, may_wait, route.patient, busy)
        said = {**(before.said if before else {}), link: error}
        self._refused[call.first + index] = Refused(route, said)
        self._waiting.setdefault(route, deque()).append((call, index))

    def ready(self, link: ClientLink, model: str) -> None:
        """A broker that had no worker for a model has one now."""
        start = link, link.epoch
        for route in [r for r in self._waiting if r.model == model and start in r.asked]:
            self._move(route, route.without(start))
        for id, refused in self._refused.items():
            if refused.route.model == model:
                self._refused[id] = refused._replace(route=refused.route.without(start))

    def wait_at(self, link: ClientLink, model: str) -> bool:
        """Whether any item of a model was sent there to wait for a worker."""
        sent = link.sent
        return any(id in sent and sent[id].model == model for id in self._parked)

    def models(self) -> set[str]:
        """Return the models of which items were refused and are open."""
        return {refused.route.model for refused in self._refused.values()}

    def feed(self, now: float, links: Sequence[ClientLink]) -> None:
        """Send on what another of these may take; fail what none is left for."""
        for route in list(self._waiting):
            if route in self._waiting:  # others may have joined it, and have left with it
                self._feed_route(now, links, route)
        away = [link for link in links if self._waiting and self.may_come(now, link)]
        self.wake_at = min((link.lost_at + self._patience for link in away), default=math.inf)

    def may_come(self, now: float, link: ClientLink) -> bool:
        """Whether a broker that is out of reach, or about to be, may be back soon."""
        away = link.draining or (link.state is not LinkState.READY and link.refusal is None)
        return away and now < link.lost_at + self._patience

    def _feed_route(self, now: float, links: Sequence[ClientLink], route: Route) -> None:
        if takers := _takers(links, route):
            self._send(now, takers, route)
        elif not route.busy and any(self.may_come(now, link) for link in links):
            pass
        elif route.may_wait:
            asked = route.asked - route.may_wait
            there = route._replace(asked=asked, may_wait=frozenset(), patient=True)
            self._move(route, there)
            self._feed_route(now, links, there)
        else:
            for call, index in self._waiting.pop(route):
                if _is_open(call, index):
                    self._fail(call, index, _most_telling(self._refused[call.first + index].said))

    def _send(self, now: float, takers: Sequence[ClientLink], route: Route) -> None:
        waiting = self._waiting[route]
        while waiting:
            call, index = waiting[0]
            if _is_open(call, index):
                link = min(takers, key=lambda each: (call.model in each.notices, len(each.sent)))
                size = len(call.payloads[index])
                if size > link.max_payload:
                    words = f"an item of {size} bytes exceeds the limit of the broker at "
                    self._fail(call, index, errors.TooLarge(words + link.address))
                elif link.room_for(size):
                    link.add(now, call, index, wait=route.patient)
                    if route.patient:
                        self._parked.add(call.first + index)
                else:
                    return
            waiting.popleft()
        del self._waiting[route]

    def _move(self, old: Route, new: Route) -> None:
        waiting = self._waiting.pop(old)
        for call, index in waiting:
            if _is_open(call, index):
                id = call.first + index
                self._refused[id] = self._refused[id]._replace(route=new)
        self._waiting.setdefault(new, deque()).extend(waiting)


def _takers(links: Sequence[ClientLink], route: Route) -> list[ClientLink]:
    """Return the brokers that can be asked and have not refused."""
    ready = [link for link in links if link.state is LinkState.READY and not link.draining]
    return [link for link in ready if (link, link.epoch) not in route.asked]


def _is_open(call: Call, index: int) -> bool:
    return not call.done and call.outcomes[index] is None


def _most_telling(said: dict[ClientLink, ZStreamerError]) -> ZStreamerError:
    """Return what the caller hears: first what another attempt may change."""
    refusals = list(said.values())
    busy = [(link, error) for link, error in said.items() if isinstance(error, Overloaded)]
    if busy:  # a broker that drains has no idea of how much work is ahead elsewhere
        _, error = min(reversed(busy), key=lambda each: (each[0].draining, each[1].retry_after))
        return error
    if no_worker := [error for error in refusals if isinstance(error, NoWorker)]:
        return no_worker[-1]
    unknown = [error for error in refusals if isinstance(error, ModelNotFound)]
    if len(unknown) < 2:
        return refusals[-1]
    words = "; another broker: ".join(dict.fromkeys(error.message for error in unknown))
    return ModelNotFound(words, sorted({name for error in unknown for name in error.models}))
