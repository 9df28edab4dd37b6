"""Where the programs' logs go, and what a line looks like: one event a line, on standard error.

2026-01-31 12:00:00,123 INFO    4711 zstreamer.broker worker came model=default host=gpu-1 pid=99
{"time": "2026-01-31T11:00:00.123Z", "level": "info", "pid": 4711, "logger": "zstreamer.broker",
 "event": "worker came", "model": "default", "host": "gpu-1", "its_pid": 99}
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)-7s %(process)d %(name)s %(message)s"

_RESERVED: Final = ("time", "level", "pid", "logger", "event")


class Event(str):
    """What a line says, as text; its parts are for programs that read logs.

    Attributes:
        words: what has happened.
        fields: the values that belong to it.
    """

    __slots__ = ("fields", "words")

    words: str
    fields: Mapping[str, object]

    def renamed(self, words: str) -> Event:
        """Return the same event in other words."""
        return _made(words, self.fields)


def event(words: str, *, first: bool = False, why: str = "", **fields: object) -> Event:
    """Return a message for a logger: ``log.info(event("worker came", model="default"))``.

    Args:
        words: what has happened.
        first: the fields stand before the words in the text.
        why: the reason, in words.
        fields: what belongs to it; in the text as ``name=value``.
    """
    return _made(words, {**fields, **({"why": why} if why else {})}, first)


def _made(words: str, fields: Mapping[str, object], first: bool = False) -> Event:
    why = fields.get("why")
    pairs = [f"{name}={_shown(value)}" for name, value in fields.items() if name != "why"]
    text = " ".join([*pairs, words] if first else [words, *pairs])
    message = Event(f"{text}: {why}" if why else text)
    message.words = words
    message.fields = fields
    return message


def _shown(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if re.fullmatch(r"[^\s\"=]+", text) else json.dumps(text, ensure_ascii=False)


class JsonFormatter(logging.Formatter):
    """Writes a line as one JSON object, with the fields of an `event` as members."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
        }
        if isinstance(record.msg, Event):
            line["event"] = record.msg.words
            for name, value in record.msg.fields.items():
                line[f"its_{name}" if name in _RESERVED else name] = value
        else:
            line["event"] = record.getMessage()
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _formatter(kind: str) -> logging.Formatter:
    return JsonFormatter() if kind == "json" else logging.Formatter(FORMAT)


def start(level: str, kind: str = "text") -> None:
    """Log to standard error from now on.

    Args:
        level: the least that is logged, such as "info".
        kind: "text", or "json" for one object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(kind))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def start_own(level: str, kind: str = "text") -> None:
    """Log this package's lines alone, in a process whose other logging is the user's to set up."""
    own = logging.getLogger("zstreamer")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(kind))
    own.addHandler(handler)
    own.setLevel(level.upper())
    own.propagate = False


def printable(text: str, most: int) -> str:
    """Return what a peer says so that it moves no cursor and breaks no line.

    Args:
        text: whatever it says.
        most: characters beyond which it is cut.
    """
    shown = text if len(text) <= most else f"{text[:most]}…"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


class Sparing:
    """Lets a line of each kind pass every so many seconds, and counts what it holds back.

    Args:
        seconds: between two lines of one kind.
        kinds: how many are told apart; all that come later count as one, whose name is empty.

    Attributes:
        due: monotonic seconds at which `flush` has something to tell; infinite where it has not.
    """

    def __init__(self, seconds: float, kinds: int = 100) -> None:
        self.due = math.inf
        self._seconds = seconds
        self._kinds = kinds
        self._due: dict[str, float] = {}
        self._held: Counter[str] = Counter()
        self._last: dict[str, str] = {}

    def admit(self, now: float, kind: str, count: int = 1, last: str = "") -> int:
        """Return how many events a line now stands for, those held back too; 0: write none.

        Args:
            now: monotonic seconds.
            kind: of the events.
            count: how many there are.
            last: what `flush` is to say of the latest.
        """
        if kind not in self._due and len(self._due) >= self._kinds:
            kind = ""
        self._held[kind] += count
        due = self._due.get(kind, -math.inf)
        if now < due:
            self._last[kind] = last
            self.due = min(self.due, due)
            return 0
        self._due[kind] = now + self._seconds
        return self._held.pop(kind, 0)  # another thread may have been first

    def flush(self, now: float) -> list[tuple[str, int, str]]:
        """Return what was held back and is due now: kind, how many, and what the latest said."""
        if now < self.due:
            return []
        ready = [kind for kind in list(self._held) if now >= self._due.get(kind, -math.inf)]
        found = [(kind, self._held.pop(kind, 0), self._last.pop(kind, "")) for kind in ready]
        self._due.update(dict.fromkeys(ready, now + self._seconds))
        self.due = min((self._due[kind] for kind in list(self._held)), default=math.inf)
        return [each for each in found if each[1]]
