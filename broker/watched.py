"""A file that the broker reads again when it has changed, looked at twice a second."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from zstreamer.keys.files import stamp_or_none
from zstreamer.setting import ConfigError

log = logging.getLogger(__name__)

LOOK = 0.5
"""Seconds between two looks at the file."""

T = TypeVar("T")


class Watched(Generic[T]):
    """What a file says.

    Args:
        path: the file.
        read: reads it.
        what: what it is about, for the log.

    Attributes:
        value: as read last; a change that makes no sense is logged and leaves it as it was.

    Raises:
        ConfigError: the file cannot be read, or a value makes no sense.
    """

    def __init__(self, path: Path, read: Callable[[Path], T], what: str) -> None:
        self._path = path
        self._read = read
        self._what = what
        self._stamp = stamp_or_none(path)
        self._look_at = 0.0
        self.value = read(path)

    def changed(self, now: float) -> bool:
        """Whether it says something else since the last time."""
        if now < self._look_at:
            return False
        self._look_at = now + LOOK
        stamp = stamp_or_none(self._path)
        if stamp is None or stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            value = self._read(self._path)
        except ConfigError as error:
            log.error("%s unchanged: %s", self._what, error)  # noqa: TRY400  # a person's mistake
            return False
        except Exception:  # a file must not end a broker that runs
            log.exception("%s unchanged: cannot read %s", self._what, self._path)
            return False
        before, self.value = self.value, value
        return value != before
