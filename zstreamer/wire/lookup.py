"""Finds the brokers that an address names: all records of a DNS name, or what files say.

    tcp+dns://zs-broker:7787   every A or AAAA record of the name
    file:/shared/broker        what `zstreamer broker --address-file` wrote; * and ? name several
    tcp://…, ipc://…           itself

A resolver and a network file system may block, so a thread of its own looks again every second and
the driver reads what it has found last.
"""

from __future__ import annotations

import contextlib
import glob
import re
import socket
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from zstreamer.config import is_looked_up
from zstreamer.errors import BrokerUnreachable
from zstreamer.system import native
from zstreamer.wire import address_file

if TYPE_CHECKING:
    from threading import Lock

EVERY = 1.0
"""Seconds between two looks: a broker that has moved is followed within two."""

UNTIL_FOUND = 0.02
GLANCE = 0.2
"""Seconds between two questions of a driver with open calls, before and after the first answer."""

IDLE = 30.0
"""Seconds after the last question of a driver until the thread pauses."""

CLIENTS, WORKERS = "clients", "workers"
"""Whose ports of the brokers are looked up."""

Ask: TypeAlias = Callable[[str, str], Sequence[str]]


class Found(NamedTuple):
    """What the given addresses name now.

    Attributes:
        addresses: one for each broker, sorted; empty where nothing was found yet.
        words: the given addresses and what each names, for messages.
    """

    addresses: tuple[str, ...]
    words: str


def ask(given: str, side: str) -> Sequence[str]:
    """Return the addresses that one given address names now.

    Args:
        given: as a user writes it.
        side: `CLIENTS` or `WORKERS`.

    Raises:
        OSError: the name is not known, or a file cannot be read.
        ValueError: a file is no address file.
    """
    if given.startswith("file:"):
        return _in_files(given.removeprefix("file:"), side)
    if given.startswith("tcp+dns:"):
        return _in_dns(given)
    return [given]


def resolved(given: Iterable[str], side: str = CLIENTS) -> tuple[str, ...]:
    """Return the brokers' addresses now; may block for as long as a resolver does.

    Raises:
        BrokerUnreachable: none was found.
    """
    lookup = Lookup(given, side)
    found = lookup.look()
    if not found.addresses:
        raise BrokerUnreachable(
            f"no broker was found at {found.words}; check the address, and that a broker runs there"
        )
    return found.addresses


class Lookup:
    """The brokers that some addresses name, looked up again and again once `start` was called.

    Args:
        given: as the user wrote them.
        side: `CLIENTS` or `WORKERS`.
        ask: what looks one of them up.
    """

    def __init__(self, given: Iterable[str], side: str, ask: Ask = ask) -> None:
        self._given = tuple(given)
        self._side = side
        self._ask = ask
        self._last: dict[str, tuple[str, ...]] = {}
        self._found: Found | None = None
        self._told: Found | None = None
        self._asked_at = time.monotonic()
        self._closed = False
        self._bell = native.lock()
        self._bell.acquire()

    def start(self) -> None:
        """Begin to look, in a thread that ends with `close`, or with the last reference."""
        reference, bell = weakref.ref(self), self._bell
        native.start_thread(lambda: _look_again(reference, bell))

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        self._ring()

    def news(self, now: float) -> Found | None:
        """Return what was found, where it is other than the last time."""
        if now - self._asked_at > IDLE:
            self._ring()
        self._asked_at = now
        found = self._found
        if found is self._told:
            return None
        self._told = found
        return found

    def wake_at(self, now: float) -> float:
        """Return the monotonic seconds at which to ask again while calls are open."""
        return now + (GLANCE if self._told and self._told.addresses else UNTIL_FOUND)

    def look(self) -> Found:
        """Look now; what cannot be looked up is as it was the last time."""
        words = []
        for given in self._given:
            trouble = ""
            try:
                self._last[given] = tuple(sorted(self._ask(given, self._side)))
            except (OSError, ValueError) as error:
                trouble = getattr(error, "strerror", None) or str(error)
            names = self._last.get(given, ())
            said = ", ".join(names) or trouble or "nothing there"
            words.append(given if names == (given,) else f"{given} ({said})")
        addresses = dict.fromkeys(
            each for given in self._given for each in self._last.get(given, ())
        )
        found = Found(tuple(addresses), ", ".join(words))
        if found != self._found:
            self._found = found
        return found

    def pause(self) -> float:
        """Return the seconds until the next look; negative when there is to be none."""
        if self._closed:
            return -1.0
        return EVERY if time.monotonic() - self._asked_at <= IDLE else 3600.0

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has been rung
            self._bell.release()


def _look_again(reference: weakref.ref[Lookup], bell: Lock) -> None:
    pause = 0.0
    while pause >= 0:
        lookup = reference()
        if lookup is None:
            return
        lookup.look()
        pause = lookup.pause()
        del lookup
        bell.acquire(timeout=max(0.0, pause))


def started(given: Iterable[str], side: str) -> Lookup | None:
    """Return the running lookup of these addresses; None where each of them is itself."""
    given = tuple(given)
    if not any(map(is_looked_up, given)):
        return None
    lookup = Lookup(given, side)
    lookup.start()
    return lookup


def _in_files(pattern: str, side: str) -> list[str]:
    path = Path(pattern)
    if path.exists() or not glob.has_magic(pattern):
        return [address_file.read(path, side)]
    found = []
    for name in sorted(glob.glob(pattern)):  # noqa: PTH207  # Path.glob takes no absolute pattern
        with contextlib.suppress(FileNotFoundError):  # its broker has just ended
            found.append(address_file.read(Path(name), side))
    return found


def _in_dns(given: str) -> list[str]:
    """All records of one family: a broker that has both would have two links."""
    match = re.fullmatch(r"tcp\+dns://(.+):(\d+)", given)
    if match is None:
        raise ValueError(f"{given} is not tcp+dns://NAME:PORT")
    rows = native.getaddrinfo(match[1].strip("[]"), int(match[2]), type=socket.SOCK_STREAM)
    families = Counter({family: 0 for family, *_ in rows})
    hosts = {(family, str(address[0])) for family, *_, address in rows}
    families.update(family for family, _ in hosts)
    chosen = families.most_common(1)[0][0]  # of two with as many records, what the system prefers
    names = [host for family, host in hosts if family == chosen]
    six = chosen == socket.AF_INET6
    return [f"tcp://[{host}]:{match[2]}" if six else f"tcp://{host}:{match[2]}" for host in names]
