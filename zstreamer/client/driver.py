"""What the drivers for threads, gevent and asyncio share: connections around one core.

    a call is made, a descriptor is ready, a timer ends
        └─> turn: receive ─> core ─> send ─> complete calls ─> set the timer

A driver lives in one thread; all of its methods run there.
"""

from __future__ import annotations

import logging
import math
import os
import random
import secrets
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import zstreamer
from zstreamer.client.calls import Call, Watch
from zstreamer.client.core import ClientCore
from zstreamer.client.settings import Settings
from zstreamer.errors import BrokerUnreachable
from zstreamer.system import descriptors, logs
from zstreamer.wire import lookup
from zstreamer.wire.connections import Connections
from zstreamer.wire.link import LinkState
from zstreamer.wire.tags import line, tag
from zstreamer.wire.transport import Connection

log = logging.getLogger(__name__)

SWEEP = 1.0
"""Seconds between two looks at the sockets while calls are open, should an edge be missed."""


MAX_PROGRAM = 200
"""Characters of a program's name that a broker is told."""


def _server() -> str:
    """Return which of gunicorn's workers this process is, by its module; empty where it is none."""
    name = "gunicorn.workers."
    found = (each[len(name) :] for each in list(sys.modules) if each.startswith(name))
    return next((each for each in found if each in ("sync", "gthread", "ggevent")), "")


class Driver(ABC):
    """Connections and timers around one `ClientCore`.

    Args:
        settings: the brokers' addresses, and how long to wait for them.

    Raises:
        BrokerUnreachable: this process may open no more descriptors.
    """

    def __init__(self, settings: Settings) -> None:
        info: dict[str, object] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "program": Path(sys.argv[0] or "python").name[:MAX_PROGRAM],
            "server": _server(),
            "release": zstreamer.__version__,
        }
        if settings.tenant:
            info["tenant"] = settings.tenant
        try:
            descriptors.require()
        except OSError as error:
            raise BrokerUnreachable(error.strerror or "") from error
        now = time.monotonic()
        # random's shared generator is copied by a fork, and all children would jitter alike.
        jitter = random.Random(secrets.randbits(64)).random
        self._tallies = settings.tallies
        self._tally = settings.tallies.new()
        id, timeout = secrets.randbits(63), settings.connect_timeout
        self.core = ClientCore(settings.addresses, id, timeout, now, jitter, info)
        self._connections = Connections(
            self.core,
            settings.options,
            self.watch,
            self.unwatch,
            credentials=settings.credentials,
        )
        self._lookup = lookup.started(settings.addresses, lookup.CLIENTS)

    @property
    def connected(self) -> int:
        """How many brokers it is connected to."""
        return sum(link.state is LinkState.READY for link in self.core.links)

    @abstractmethod
    def watch(self, connection: Connection) -> None:
        """Call `turn` whenever this connection has something to read."""

    @abstractmethod
    def unwatch(self, connection: Connection) -> None:
        """End what `watch` began; the connection is about to be closed."""

    @abstractmethod
    def complete(self, call: Call | Watch) -> None:
        """Give a call that has ended back to its caller."""

    def begin(self, call: Call | Watch) -> None:
        """Hand a call to the core."""
        if isinstance(call, Watch):
            self.core.watch(call)
        else:
            self.core.submit(call)

    def turn(self) -> float:
        """Do everything that can be done now; return when to come back (monotonic seconds)."""
        core = self.core
        now = time.monotonic()
        if self._lookup is not None and (found := self._lookup.news(now)):
            core.on_addresses(now, *found)
        again = True
        while again:
            self._connections.read(now)
            again = False
            for action in core.poll(now):
                again = self._connections.act(now, action) or again
            for call in core.completed():
                if isinstance(call, Call):
                    self._tally.ended(now, call)
                    call.end_trace()
                    if log.isEnabledFor(logging.DEBUG):
                        self._tell(now, call)
                self.complete(call)
                again = True  # its caller may have made the next call already
        self._tallies.look(now, self._tally)
        wake_at = min(core.wake_at(), self._tally.due)
        if self._lookup is not None and core.open_calls:
            return min(wake_at, self._lookup.wake_at(now))
        return wake_at

    def _tell(self, now: float, call: Call) -> None:
        """Log the end of a call, with what its items are called in the logs of all."""
        items = range(call.first, call.first + len(call.outcomes))
        outcome = "ok" if call.error is None else call.error.kind
        log.debug(
            logs.event(
                "call ended",
                model=call.model,
                outcome=outcome,
                seconds=round(now - call.submitted, 6),
                items=line(tag(self.core.id, item) for item in items),
            )
        )

    def shut_down(self) -> None:
        """End all calls and close all connections."""
        if self._lookup is not None:
            self._lookup.close()
        self.core.close()
        now = time.monotonic()
        for action in self.core.poll(now):
            self._connections.act(now, action)
        for call in self.core.completed():
            if isinstance(call, Call):
                self._tally.ended(now, call)
                call.end_trace()
            self.complete(call)
        self._tallies.retire(self._tally)
        self._connections.close()


class LoopDriver(Driver):
    """A driver in an event loop: it turns after submissions, on readiness, and by one timer.

    Args:
        settings: see `Driver`.
        soon: has the loop call a function after all that is ready now, so that what it submits
            leaves together.
    """

    def __init__(self, settings: Settings, soon: Callable[[Callable[[], None]], object]) -> None:
        super().__init__(settings)
        self._call_soon = soon
        self._scheduled = False
        self._timer_at = math.inf  # inf: no timer is set

    @abstractmethod
    def set_timer(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function after so many seconds (inf: never), in place of what was set before."""

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        wake_at = self.turn()
        now = time.monotonic()
        if self.core.open_calls:
            wake_at = min(wake_at, now + SWEEP)
        # Come back then, or earlier: most calls end before their deadline does.
        if now < self._timer_at <= wake_at:
            return
        self._timer_at = wake_at
        self.set_timer(max(0.0, wake_at - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer_at = math.inf
        self._turn()  # some loops round, and come a little too early: then it is set again
