"""Which models there are: the brokers' snapshots, kept fresh for all requests of a process.

WSGI, threads and gevent:   snapshot = directory.get()
ASGI:                       snapshot = await directory.aget()

ask ──> fresh enough? ──> here it is
          └─ no ──> one thread of the system asks the brokers; others wait meanwhile
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from zstreamer.client import status
from zstreamer.config import addresses
from zstreamer.errors import BrokerUnreachable, ZStreamerError
from zstreamer.keys.credentials import Keys, given
from zstreamer.keys.ring import Role
from zstreamer.system import native, waiter
from zstreamer.web.api.snapshot import Snapshot, merged
from zstreamer.wire import lookup

log = logging.getLogger(__name__)

Callback: TypeAlias = "Callable[[Snapshot | ZStreamerError], None]"

FRESH = 1.0
"""Seconds for which a snapshot counts as new."""

STALE = 3.0
"""Seconds after which it is too old. In between it is used while a new one is fetched, so
that under load nobody ever waits for one."""

LATE = 5.0
"""Seconds after which callers stop waiting for a thread that does not answer."""

SUSPECT = 0.25
"""Seconds for a broker that did not answer the last time, so that the others need not wait long."""


class Directory:
    """Keeps the snapshots of the brokers, merged; asks for them only when needed.

    Serves all threads, greenlets and tasks of a process. May be made before a fork and before
    gevent patches: nothing is asked before the first call, and a forked child asks for itself.

    Args:
        brokers: their client addresses, as `zstreamer.Client` takes them.
        timeout: seconds that a broker has to answer; probes of `/readyz` wait as long.
        keys: as `zstreamer.Client` takes them.

    Raises:
        ValueError: an address makes no sense; the message says how to fix it.
    """

    def __init__(
        self, brokers: str | Sequence[str], timeout: float = 1.0, keys: Keys = None
    ) -> None:
        self._addresses = addresses(brokers)
        self._credentials = given(keys, Role.CLIENT)
        self._timeout = timeout
        self._begin_anew()
        _directories.add(self)

    def _begin_anew(self) -> None:
        self._lock = native.lock()
        self._waiting: list[Callback] = []
        self._fetching = False
        self._found: Snapshot | ZStreamerError = BrokerUnreachable("no broker has been asked yet")
        self._found_at = -STALE  # of a monotonic clock, which may begin at 0
        self._silent: set[str] = set()
        self._lookup = lookup.Lookup(self._addresses, lookup.CLIENTS)

    def get(self, oldest: float = math.inf) -> Snapshot:
        """Return the snapshot; blocks the thread, or the greenlet alone, while it is fetched.

        Args:
            oldest: seconds; an older one is not used.

        Raises:
            BrokerUnreachable: no broker answered.
        """
        found = self._at_hand(oldest)
        if found is None:
            found = self._wait(oldest)
        return _raised(found)

    def _wait(self, oldest: float) -> Snapshot | ZStreamerError:
        here = waiter.here()
        answers: list[Snapshot | ZStreamerError] = []

        def callback(found: Snapshot | ZStreamerError) -> None:
            answers.append(found)
            here.wake()

        self.ask(callback, oldest)
        if here.wait(LATE + self._timeout * len(self._addresses)):
            return answers[0]
        return BrokerUnreachable("the thread that asks the brokers does not answer")

    async def aget(self, oldest: float = math.inf) -> Snapshot:
        """Return the snapshot, as `get` does, without blocking the event loop."""
        found = self._at_hand(oldest)
        if found is not None:
            return _raised(found)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Snapshot | ZStreamerError] = loop.create_future()

        def settle(found: Snapshot | ZStreamerError) -> None:
            if not future.done():  # its task may have been cancelled
                future.set_result(found)

        def callback(found: Snapshot | ZStreamerError) -> None:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(settle, found)

        self.ask(callback, oldest)
        return _raised(await future)

    def ask(self, callback: Callback, oldest: float = math.inf) -> None:
        """Call back with the snapshot or the error: at once, here, or soon, from another thread."""
        found = self._at_hand(oldest)
        if found is not None:
            callback(found)
            return
        with self._lock:
            self._waiting.append(callback)
        self._fetch()

    def _at_hand(self, oldest: float) -> Snapshot | ZStreamerError | None:
        """Return what is known if it is not too old, and see to it that it will be renewed."""
        age = time.monotonic() - self._found_at
        if age >= oldest:
            return None
        if age >= FRESH:
            if age >= STALE or isinstance(self._found, ZStreamerError):
                return None
            self._fetch()
        return self._found

    def _fetch(self) -> None:
        with self._lock:
            if self._fetching:
                return
            self._fetching = True
        try:
            native.start_thread(self._run)
        except RuntimeError as error:
            self._tell(BrokerUnreachable(f"no thread can be started to ask the brokers: {error}"))

    # In a thread of its own

    def _run(self) -> None:
        try:
            found = self._ask_all()
        except Exception as error:
            log.exception("the brokers could not be asked")
            found = BrokerUnreachable(f"the brokers could not be asked: {error!r}")
        self._tell(found)
        _leave_hub()

    def _tell(self, found: Snapshot | ZStreamerError) -> None:
        with self._lock:
            self._found, self._found_at = found, time.monotonic()
            self._fetching = False
            waiting, self._waiting = self._waiting, []
        for callback in waiting:
            try:
                callback(found)
            except Exception:
                log.exception("%r could not be told which models there are", callback)

    def _ask_all(self) -> Snapshot | ZStreamerError:
        found, errors, silent = [], [], set()
        named = self._lookup.look()
        if not named.addresses:
            return BrokerUnreachable(f"no broker was found at {named.words}")
        for address in named.addresses:
            patience = min(SUSPECT, self._timeout) if address in self._silent else self._timeout
            try:
                found.append(status.fetch(address, patience, self._credentials))
            except ZStreamerError as error:
                errors.append(error)
                silent.add(address)
        # If no broker answers, waiting for them delays nobody.
        self._silent = silent if found else set()
        return merged(found) if found else errors[0]


def _raised(found: Snapshot | ZStreamerError) -> Snapshot:
    if isinstance(found, ZStreamerError):
        # Many may wait for the same one, and each raise hangs its own frames on it.
        raise type(found)(found.message)
    return found


def _leave_hub() -> None:
    """End the hub that gevent makes for a thread in which something patched has slept."""
    local = sys.modules.get("gevent._hub_local")
    hub = None if local is None else local.get_hub_if_exists()
    if hub is not None:
        hub.destroy(destroy_loop=True)


_directories: weakref.WeakSet[Directory] = weakref.WeakSet()


def _after_fork() -> None:
    for directory in list(_directories):
        directory._begin_anew()


os.register_at_fork(after_in_child=_after_fork)
