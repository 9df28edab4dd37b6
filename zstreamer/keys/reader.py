"""Keeps the lists of a folder of keys as they are now, read by a thread that looks twice a second.

A file that is gone takes its key with it. One that is there and cannot be read, such as while an
editor writes it, leaves its key as it was; a new one has to be good before it lets anybody in.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from zstreamer.keys import folder
from zstreamer.keys.bearer import Caller, Callers
from zstreamer.keys.folder import BROKER, HTTP, LISTS, Folder
from zstreamer.keys.ring import Principal, Ring, Role
from zstreamer.keys.secrets import Pair
from zstreamer.setting import ConfigError

log = logging.getLogger(__name__)

LOOK = 0.25
"""Seconds between two looks at the files."""

E = TypeVar("E")
_State = tuple[int, int, int]


class Lists(NamedTuple):
    """What a folder says at one moment.

    Attributes:
        ring: clients and workers that may pass.
        callers: whose bearer tokens are good.
        pair: the broker's own; None where the folder is a gateway's.
    """

    ring: Ring
    callers: Callers
    pair: Pair | None


class _Entries(Generic[E]):
    """The entries of one list, each read again when its file has changed.

    Args:
        place: the folder of the list.
        read: reads one file.
    """

    def __init__(self, place: Path, read: Callable[[Path], E]) -> None:
        self._place = place
        self._read = read
        self._known: dict[Path, tuple[_State, E | None]] = {}
        self._bad: set[Path] = set()

    def look(self, strict: bool) -> bool:
        """Read what has changed; return whether anything has.

        Args:
            strict: raise ConfigError for a file that is not good, in place of logging it.
        """
        files = {path: _state(path) for path in self._place.glob("*.key")}
        changed = False
        for path in [each for each in self._known if files.get(each) is None]:
            changed = self._known.pop(path)[1] is not None or changed
            self._bad.discard(path)
        for path, state in files.items():
            before = self._known.get(path)
            if state is None or (before is not None and before[0] == state):
                continue
            try:
                self._known[path] = state, self._read(path)
                self._bad.discard(path)
                changed = True
            except ConfigError as error:
                if strict:
                    raise
                if path not in self._bad:
                    log.error("a key is not as it should be: %s", error)  # noqa: TRY400
                self._bad.add(path)
        return changed

    def __call__(self) -> list[E]:
        return [entry for _, entry in self._known.values() if entry is not None]


class Reader:
    """The lists of one folder.

    Args:
        path: the folder of `zstreamer keys`.
        broker: whether the broker's own pair is wanted.

    Attributes:
        lists: what holds now; replaced as a whole, so any thread may read it.

    Raises:
        ConfigError: a file is missing, loose or not what it should be.
    """

    def __init__(self, path: Path | str, *, broker: bool = True) -> None:
        self._folder = Folder(path)
        self._folder.check()
        self._lists = {
            role: _Entries(self._folder.path / name, _principals(self._folder, role))
            for role, name in LISTS.items()
        }
        self._http: _Entries[Caller] = _Entries(self._folder.path / HTTP, folder.caller)
        self._own = self._folder.path / BROKER if broker else None
        self._own_state: _State | None = None
        self._pair: Pair | None = None
        self._own_is_bad = False
        self._looking = threading.Lock()
        self._looked = time.monotonic()
        self.lists = Lists(Ring(), Callers(), None)
        self.look(strict=True)

    def start(self) -> None:
        """Look again and again, in a thread that ends with the program."""
        threading.Thread(target=self._run, name="keys", daemon=True).start()

    def fresh(self) -> Lists:
        """Return the lists, and look first where the last look is too long ago."""
        if time.monotonic() - self._looked > LOOK and self._looking.acquire(blocking=False):
            try:
                self.look()
            finally:
                self._looking.release()
        return self.lists

    def look(self, strict: bool = False) -> bool:
        """Read what has changed; return whether anything has. For one thread at a time."""
        self._looked = time.monotonic()
        changed = [each.look(strict) for each in self._lists.values()]
        changed += [self._http.look(strict), self._look_at_own(strict)]
        if any(changed) or strict:
            principals = [each for entries in self._lists.values() for each in entries()]
            self.lists = Lists(Ring(principals), Callers(self._http()), self._pair)
        return any(changed)

    def _look_at_own(self, strict: bool) -> bool:
        if self._own is None:
            return False
        state = _state(self._own)
        if state == self._own_state and not strict:
            return False
        try:
            found = self._folder.broker().pair
        except ConfigError as error:
            if strict:
                raise
            if not self._own_is_bad:
                log.error("the broker keeps its key of before: %s", error)  # noqa: TRY400
            self._own_is_bad = True
            return False
        self._own_state, self._own_is_bad = state, False
        before, self._pair = self._pair, found
        return before is None or (found is not None and before.public != found.public)

    def _run(self) -> None:
        while True:
            time.sleep(LOOK)
            try:
                self.look()
            except Exception:
                log.exception("the keys could not be read; those of before hold")


def _principals(of: Folder, role: Role) -> Callable[[Path], Principal]:
    return lambda path: of.entry(path, role).principal


def _state(path: Path) -> _State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
