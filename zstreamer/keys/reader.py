"""Keeps the lists of a folder of keys as they are now; a thread looks four times a second.

A file that is gone takes its key with it. One that is there and cannot be read, such as while an
editor writes it, leaves its key as it was; a new one has to be good before it lets anybody in.
Where the folder cannot be looked into at all, such as when a network drive has gone, all stays as
it was.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from zstreamer.keys import folder
from zstreamer.keys.bearer import Caller, Callers
from zstreamer.keys.files import Stamp, check_folder, stamp, stamp_or_none
from zstreamer.keys.folder import BROKER, HTTP, LISTS, Folder
from zstreamer.keys.ring import Principal, Ring, Role
from zstreamer.keys.secrets import Pair
from zstreamer.setting import ConfigError

log = logging.getLogger(__name__)

LOOK = 0.25
"""Seconds between two looks at the files."""

E = TypeVar("E")


class Lists(NamedTuple):
    """What a folder says at one moment.

    Attributes:
        ring: clients and workers that may pass.
        callers: whose bearer tokens are good, at the broker's status pages.
        pair: the broker's own.
    """

    ring: Ring
    callers: Callers
    pair: Pair


class _Entries(Generic[E]):
    """The entries of one list, each read again when its file has changed.

    Args:
        place: the folder of the list.
        read: reads one file.
    """

    def __init__(self, place: Path, read: Callable[[Path], E]) -> None:
        self._place = place
        self._read = read
        self._known: dict[Path, tuple[Stamp, E | None]] = {}
        self._bad: set[Path] = set()
        self._lost = False

    def look(self, strict: bool) -> bool:
        """Read what has changed; return whether anything has.

        Args:
            strict: raise ConfigError for a file that is not good, in place of logging it.
        """
        try:
            files = _files(self._place, must_be_there=bool(self._known))
        except OSError as error:
            self._unreadable(error, strict)
            return False
        self._lost = False
        changed = False
        for path in [each for each in self._known if each not in files]:
            changed = self._known.pop(path)[1] is not None or changed
            self._bad.discard(path)
        for path, stamped in files.items():
            before = self._known.get(path)
            if before is not None and before[0] == stamped:
                continue
            try:
                self._known[path] = stamped, self._read(path)
                self._bad.discard(path)
                changed = True
            except ConfigError as error:
                if strict:
                    raise
                if path not in self._bad:
                    log.error("a key's file is not used: %s", error)  # noqa: TRY400
                self._bad.add(path)
        return changed

    def _unreadable(self, error: OSError, strict: bool) -> None:
        words = f"cannot look into the folder of keys {self._place}: {error.strerror}"
        if strict:
            raise ConfigError(words) from None
        if not self._lost:
            log.error("%s; all keys stay as they were", words)
        self._lost = True

    def __call__(self) -> list[E]:
        return [entry for _, entry in self._known.values() if entry is not None]


class Reader:
    """The lists of one folder.

    Args:
        path: the folder of `zstreamer keys`.

    Attributes:
        lists: what holds now; replaced as a whole, so any thread may read it.

    Raises:
        ConfigError: a file is missing, loose or not what it should be.
    """

    def __init__(self, path: Path | str) -> None:
        self._folder = Folder(path)
        self._folder.check()
        self._lists = {
            role: _Entries(self._folder.path / name, _principals(self._folder, role))
            for role, name in LISTS.items()
        }
        self._http: _Entries[Caller] = _Entries(self._folder.path / HTTP, folder.caller)
        self._own = self._folder.path / BROKER
        self._own_stamp: Stamp | None = None
        self._own_is_bad = False
        self._pair = self._own_pair()
        self.lists = Lists(Ring(), Callers(), self._pair)
        self.look(strict=True)

    def start(self) -> None:
        """Look again and again, in a thread that ends with the program."""
        threading.Thread(target=self._run, name="keys", daemon=True).start()

    def look(self, strict: bool = False) -> bool:
        """Read what has changed; return whether anything has.

        Where the broker's own key is not there, its folder is another one or none: nothing is read.
        """
        changed = [self._look_at_own()]
        if self._own_is_bad and stamp_or_none(self._own) is None:
            return False
        changed += [each.look(strict) for each in self._lists.values()]
        changed.append(self._http.look(strict))
        if any(changed) or strict:
            principals = [each for entries in self._lists.values() for each in entries()]
            self.lists = Lists(Ring(principals), Callers(self._http()), self._pair)
        return any(changed)

    def _look_at_own(self) -> bool:
        stamped = stamp_or_none(self._own)
        if stamped == self._own_stamp:
            self._own_is_bad = False
            return False
        try:
            found = self._own_pair()
        except ConfigError as error:
            if not self._own_is_bad:
                kept = "key" if stamped else "key and lists"
                log.error("the broker keeps its old %s: %s", kept, error)  # noqa: TRY400
            self._own_is_bad = True
            return False
        self._own_stamp, self._own_is_bad = stamped, False
        before, self._pair = self._pair, found
        return before.public != found.public

    def _own_pair(self) -> Pair:
        pair = self._folder.broker().pair
        assert pair is not None  # noqa: S101  # `Folder.broker` has seen to it
        return pair

    def _run(self) -> None:
        while True:
            time.sleep(LOOK)
            try:
                self.look()
            except Exception:
                log.exception("the keys could not be read; they stay as they were")


class CallersReader:
    """Whose bearer tokens are good, for a gateway: looks at the files when it is asked.

    Args:
        path: a folder of `zstreamer keys`, or the http folder of one alone.

    Raises:
        ConfigError: a file is missing, loose or not what it should be.
    """

    def __init__(self, path: Path | str) -> None:
        given = Path(path)
        check_folder(given)
        place = given / HTTP
        self._entries = _Entries(place if place.is_dir() else given, folder.caller)
        self._looking = threading.Lock()
        self._looked = time.monotonic()
        self._entries.look(strict=True)
        self._callers = Callers(self._entries())

    def __call__(self) -> Callers:
        """Return those of now, at most `LOOK` seconds old."""
        if time.monotonic() - self._looked > LOOK and self._looking.acquire(blocking=False):
            try:
                self._looked = time.monotonic()
                if self._entries.look(strict=False):
                    self._callers = Callers(self._entries())
            finally:
                self._looking.release()
        return self._callers


def _principals(of: Folder, role: Role) -> Callable[[Path], Principal]:
    return lambda path: of.entry(path, role).principal


def _files(place: Path, must_be_there: bool) -> dict[Path, Stamp]:
    """Return the entries that a folder has; raises OSError where that cannot be told.

    A file that is gone by the time it is looked at counts as gone; any other trouble does not.
    """
    found: dict[Path, Stamp] = {}
    try:
        with os.scandir(place) as listed:
            paths = [place / each.name for each in listed if each.name.endswith(".key")]
    except FileNotFoundError:
        if must_be_there:
            raise
        return found
    for path in paths:
        with suppress(FileNotFoundError):
            found[path] = stamp(path)
    return found
