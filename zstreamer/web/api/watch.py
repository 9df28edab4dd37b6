"""Whether hosts have done what they were told: load a model, or unload it. Pure.

    order taken ──> look, look, look … ──> done, or why not

The brokers' snapshots show what hosts offer and which workers are warm. A host that is missing from
them is not gone at once: its broker may be starting again, and the host on its way back to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from zstreamer.errors import DeadlineExceeded, NoWorker
from zstreamer.web.api.problem import Refused
from zstreamer.wire.offers import LoadState, full_name

GONE = 10.0
"""Seconds after which a host that no snapshot shows counts as gone."""

_RUNS = (LoadState.LOADED, LoadState.UNLOADING)


class Hosted(NamedTuple):
    """What one host offers, and how many orders it has taken.

    `offers` are states and reasons, by name and version. `whole` is False where the broker has
    left out some of them, for want of room.
    """

    orders: float
    offers: Mapping[tuple[str, str], tuple[str, str]]
    whole: bool = True

    def state(self, name: str) -> str:
        """Return the state of a version by its full name; empty where it is not shown."""
        for key, (state, _) in self.offers.items():
            if full_name(*key) == name:
                return state
        return ""


class Seen(NamedTuple):
    """What a look has shown.

    Args:
        hosts: by their ids.
        ready: names of versions with a warm worker.
        workers: names of versions that have workers at all.
        why: returns why a version that is not ready is not; empty while it may come to be.
    """

    hosts: Mapping[str, Hosted]
    ready: frozenset[str]
    workers: frozenset[str]
    why: Callable[[str], str]


class Taken(NamedTuple):
    """An order as brokers have taken it.

    Args:
        action: "load" or "unload".
        models: names of the versions that it is about.
        orders: for each host that does it, how many orders it has taken, this one included.
        refused: why other hosts do not.
        silent: why other brokers have not taken it; their hosts mostly have it from another one.
    """

    action: str
    models: Sequence[str]
    orders: Mapping[str, float]
    refused: Sequence[str] = ()
    silent: Sequence[str] = ()


class Watch:
    """Follows an order.

    Args:
        taken: the order.
        now: monotonic seconds.
        end: until when to look.
    """

    def __init__(self, taken: Taken, now: float, end: float) -> None:
        self._taken = taken
        self._end = end
        self._missing = dict.fromkeys(taken.orders, now)

    def look(self, now: float, seen: Seen | None) -> bool:
        """Return whether it is done.

        Args:
            now: monotonic seconds.
            seen: what a look has shown; None where no broker has answered.

        Raises:
            NoWorker: it has failed, or a host has gone.
            Refused: another order has undone it meanwhile (409).
            DeadlineExceeded: the time is over, and it goes on.
        """
        if seen is not None and self._is_done(now, seen):
            return True
        if now >= self._end:
            names = ", ".join(self._taken.models)
            raise DeadlineExceeded(f"not done yet, and it goes on: {names}; see the index")
        return False

    def _is_done(self, now: float, seen: Seen) -> bool:
        here = seen.hosts
        for id, since in list(self._missing.items()):
            if id in here:
                self._missing[id] = now
            elif now - since > GONE:
                self._lost()
        # A look that is older than the order shows what was before it.
        if not all(id in here and here[id].orders >= n for id, n in self._taken.orders.items()):
            return False
        if self._taken.action == "load":
            return self._is_loaded(seen)
        return self._is_unloaded(seen)

    def _lost(self) -> None:
        names = ", ".join(self._taken.models)
        raise NoWorker(
            f"the host that was to {self._taken.action} {names} has gone; "
            "what it had started may still run",
            final=True,
        )

    def _is_loaded(self, seen: Seen) -> bool:
        for name in self._taken.models:
            if name not in seen.ready and (why := self._failed(seen, name)):
                raise NoWorker(f"model {name!r} could not be loaded: {why}", final=True)
        return seen.ready.issuperset(self._taken.models)

    def _failed(self, seen: Seen, name: str) -> str:
        """Why no host will have it ready; empty where one may."""
        hosts = [seen.hosts[id] for id in self._taken.orders]
        states = [host.state(name) for host in hosts]
        if LoadState.LOADED in states or not all(host.whole for host in hosts):
            return ""
        return seen.why(name) or "its host does not offer it any more"

    def _is_unloaded(self, seen: Seen) -> bool:
        for id, number in self._taken.orders.items():
            host = seen.hosts[id]
            for name in self._taken.models:
                state = host.state(name)
                if state == LoadState.LOADED and host.orders > number:
                    raise Refused(409, f"{name} was loaded again by another order meanwhile")
                if state in _RUNS or (not host.whole and name in seen.workers):
                    return False
        if self._taken.refused:
            why = "; ".join(self._taken.refused)
            raise NoWorker(f"not all hosts have unloaded it: {why}", final=True)
        return True
