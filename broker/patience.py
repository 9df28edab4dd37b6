"""How many errors and requests of one session are tolerated before the broker ignores it.

Messages of an ignored ("deaf") session are not read any more, and the driver ends its connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

MAX_FAULTS = 16
"""Refusals of one session that are answered; then it is told nothing more, and not heard."""

DEAF = 60.0
"""Seconds for which a session is not heard, and after which its faults are forgotten."""

BURST = 16 * 1024 * 1024
REFILL = 4 * 1024 * 1024
"""Bytes of answers to STATUS that a session may have at once, and a second, since nothing shows
whether it has read them."""

ANSWER = 1024
"""Bytes that an answer counts for besides its own."""

MAX_WORDS = 2000
FEWER_WORDS = 500
WORDS_AN_ITEM = 4
"""Messages of a session that do no work, such as PING and NOTICE, which it may send at
once and a second; each item that is answered pays for some. What comes faster than it can be read
would fill the memory before anybody has seen it."""

WORTH_ITS_WORD = 64 * 1024
"""Bytes of a PART that counts as work."""

MAX_SESSIONS = 10_000
"""Sessions of which this much is known; of more, the oldest are forgotten."""

V = TypeVar("V")


class Patience:
    """Counts by session; told the time.

    Attributes:
        deaf: sessions that are not heard, and until when.
    """

    def __init__(self) -> None:
        self.deaf: dict[bytes, float] = {}
        self._faults: dict[bytes, tuple[float, int]] = {}
        self._asked: dict[bytes, tuple[float, float]] = {}

    def fault(self, now: float, session: bytes) -> bool:
        """Count an error of a session; False where it is ignored from now on."""
        since, count = self._faults.get(session, (now, 0))
        if count + 1 < MAX_FAULTS:
            _put(self._faults, session, (since, count + 1))
            return True
        self.give_up(now, session)
        return False

    def give_up(self, now: float, session: bytes) -> None:
        """Ignore a session from now on."""
        self._faults.pop(session, None)
        _put(self.deaf, session, now + DEAF)

    def ask(self, now: float, session: bytes, size: int) -> bool:
        """Count an answer of this many bytes; False where the session has had too many."""
        at, level = self._asked.get(session, (now, 0.0))
        level = max(0.0, level - (now - at) * REFILL)
        size += ANSWER
        if level + size > BURST:
            return False
        _put(self._asked, session, (now, level + size))
        return True

    def forget(self, now: float) -> None:
        """Forget what is too old to matter."""
        _drop(self.deaf, lambda until: until <= now)
        _drop(self._faults, lambda fault: fault[0] + DEAF <= now)
        _drop(self._asked, lambda asked: asked[0] + BURST / REFILL <= now)


def _put(table: dict[bytes, V], session: bytes, value: V) -> None:
    if session not in table and len(table) >= MAX_SESSIONS:
        del table[next(iter(table))]
    table[session] = value


def _drop(table: dict[bytes, V], is_old: Callable[[V], bool]) -> None:
    for session in [session for session, value in table.items() if is_old(value)]:
        del table[session]
