"""The broker's page for people: what it shows, and the one JSON document that feeds it.

/              the page; its script, style and charts come from here, too
/live?since=S  the state, and the steps of the last minutes after S seconds of uptime

The document is made at most once a second, however many watch, and has no more than so many rows.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from heapq import nlargest
from pathlib import Path
from typing import Final

from zstreamer.broker import snapshot
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.history import KEYS, History
from zstreamer.broker.workers import Worker
from zstreamer.system.pages import Answer, Page, Query

EVERY = 0.9
"""Seconds for which a state is shown to all who ask."""

WATCHED = 10.0
"""Seconds after the last request for which workers are asked how they are."""

WORKERS, CLIENTS, MODELS = 256, 500, 100
"""Rows that are shown at most, the busiest of them."""

_FOLDER = Path(__file__).with_name("page")

_KINDS: Final = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uPlot.min.css": "text/css; charset=utf-8",
}

FILES: Final = ("/", *(f"/{name}" for name in _KINDS))
"""Paths of the page itself, which knows nothing of the broker."""

# uPlot sets the sizes of its parts as styles; there is no inline script.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Live:
    """The page and its document.

    Args:
        core: the broker, which another thread runs: here it is only read.
        acts: whether the page may offer to drain, refuse and resume, with the operator's token.
    """

    def __init__(self, core: BrokerCore, acts: bool) -> None:
        self._core = core
        self._acts = acts
        self._history = History()
        self._making = threading.Lock()
        self._state = b"{}"
        self._made = self._asked = -1e9

    def pages(self) -> dict[str, Answer]:
        """Return what there is, by path."""
        found: dict[str, Answer] = {"/live": self._live, "/": _file("index.html")}
        return found | {f"/{name}": _file(name) for name in _KINDS if name != "index.html"}

    def look(self, now: float) -> None:
        """Note this second, and ask the workers while somebody watches; called by the loop."""
        self._history.look(self._core, now)
        if now - self._asked < WATCHED:
            self._core.look(now)

    def _live(self, query: Query) -> Page:
        now = self._asked = time.monotonic()
        with self._making:
            if now - self._made > EVERY:
                self._state = json.dumps(self._document(now), separators=(",", ":")).encode()
                self._made = now
            state = self._state
        try:
            since = float(query.get("since", 0))
        except ValueError:
            since = 0.0
        steps = json.dumps(self._history.since(since), separators=(",", ":")).encode()
        return Page(200, state[:-1] + b',"steps":' + steps + b"}", headers=_HEADERS)

    def _document(self, now: float) -> dict[str, object]:
        core = self._core
        workers = list(core.workers.values())
        clients = list(core.sessions.connected.values())
        models = [model for model in list(core.models.values()) if model.known]
        shown = nlargest(WORKERS, workers, key=lambda each: len(each.tickets))
        shown.sort(key=_place)
        busiest = nlargest(CLIENTS, clients, key=lambda each: (len(each.items), each.sent))
        return {
            "keys": KEYS,
            "acts": self._acts,
            "uptime": round(now - core.born, 1),
            "draining": core.draining,
            "held": list(core.sessions.holds.names),
            "refused": list(core.sessions.banned.names),
            "counts": {"workers": len(workers), "clients": len(clients), "models": len(models)},
            "models": [snapshot.model_row(each, now) for each in models[:MODELS]],
            "workers": [snapshot.worker_row(each, now) for each in shown],
            "clients": [snapshot.client_row(each) for each in busiest],
        }


def _place(worker: Worker) -> tuple[str, str, int]:
    """Return where a worker stands in the table."""
    pid = worker.info.get("pid")
    return worker.model.name, str(worker.info.get("host")), pid if isinstance(pid, int) else 0


def _file(name: str) -> Answer:
    body = (_FOLDER / name).read_bytes()
    page = Page(200, body, _KINDS[name], _HEADERS)

    def answer(_: Mapping[str, str]) -> Page:
        return page

    return answer
