"""The broker's HTTP port: health, readiness, metrics and status, for probes, Prometheus and people.

/healthz   200 while the broker's loop turns
/readyz    200 while a worker that is warm and answers serves at least one model, else 503;
           /readyz?model=NAME asks for one
/metrics   for Prometheus, see docs/metrics.md
/status    the snapshot as JSON
/          the page for people, see `zstreamer.broker.live`
/operator  POST {"action": …, "name": …}, see `zstreamer.broker.operator` for the actions, and
           `zstreamer.broker.orders` for who may give them

Beyond loopback, and where the broker asks for keys, what is not for probes needs a bearer token
(`zstreamer keys http NAME`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from zstreamer.broker import live
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.live import Live
from zstreamer.broker.metrics import Metrics
from zstreamer.broker.orders import Orders
from zstreamer.config import BrokerConfig, stays_on_machine
from zstreamer.exposition import CONTENT_TYPE
from zstreamer.histogram import Histogram
from zstreamer.keys.bearer import Callers
from zstreamer.system.pages import Lock, Page, Pages, Query, words

log = logging.getLogger(__name__)

PUBLISH = 0.5
"""Seconds between two snapshots; the loop makes them, the HTTP threads only read them."""

OPEN = ("/healthz", "/readyz", *live.FILES)
"""Pages that need no token: those for probes, and the page for people without its figures."""

SURVEY = 5.0
SCRAPED = 90.0
"""Seconds between two questions to the workers for /metrics, and for which they are asked after a
scrape."""

STALE = 5.0
"""Seconds without a new snapshot after which the loop counts as stuck."""

STILL = 1.7
"""The same for readiness: what does not turn answers nobody."""


class Admin:
    """Serves what a broker knows from a thread of its own; does nothing where the port is 0.

    Args:
        config: says where.
        core: what is looked at.
        turns: how long the loop's turns take.
        callers: returns whose bearer tokens are good now; None where the broker asks for no keys.
    """

    def __init__(
        self,
        config: BrokerConfig,
        core: BrokerCore,
        turns: Histogram,
        callers: Callable[[], Callers] | None = None,
    ) -> None:
        self._core = core
        self._orders = Orders(config.operator_token, keys=config.keys is not None)
        self._live = Live(core, self._orders.by_token)
        local = stays_on_machine(f"tcp://{config.host}:{config.http_port}")
        self._next = self._survey_at = 0.0
        self._scraped = -math.inf
        self._metrics = Metrics(core, turns)
        self.snapshot: dict[str, object] = core.snapshot(time.monotonic())
        self.published = time.monotonic()
        self._pages: Pages | None = None
        if config.http_port:
            try:
                self._pages = Pages(
                    config.host,
                    config.http_port,
                    {
                        "/healthz": self._health,
                        "/readyz": self._ready,
                        "/metrics": self._scrape,
                        "/status": lambda _: words(200, self.snapshot),
                        **self._live.pages(),
                    },
                    None if local or callers is None else Lock(OPEN, callers),
                    {"/operator": self._orders.take},
                )
            except OSError as error:
                log.warning(
                    "no HTTP port address=%s:%d: %s; choose another with --http-port, or 0",
                    config.host,
                    config.http_port,
                    error,
                )

    @property
    def port(self) -> int:
        """The port that it serves, 0 for none."""
        return self._pages.port if self._pages is not None else 0

    def publish(self, now: float) -> None:
        """Do what operators have ordered, and take a new snapshot where one is due."""
        if self._pages is None:
            return
        self._orders.carry_out(self._core, now)
        self._live.look(now)
        if now >= self._survey_at and now < self._scraped + SCRAPED:
            self._survey_at = now + SURVEY
            self._core.look(now)
        if now >= self._next:
            self._next = now + PUBLISH
            self.snapshot = self._core.snapshot(now)
            self.published = now

    def _scrape(self, _: Query) -> Page:
        self._scraped = time.monotonic()
        return Page(200, self._metrics.text(), CONTENT_TYPE)

    def _health(self, _: Query) -> Page:
        stuck = time.monotonic() - self.published > STALE
        return words(503 if stuck else 200, {"ok": not stuck})

    def _ready(self, query: Query) -> Page:
        now = time.monotonic()
        known = {m.name: m for m in list(self._core.models.values()) if m.known}
        turns = now - self.published < STILL
        ready = sorted(name for name, model in known.items() if turns and model.answers(now))
        good = query["model"] in ready if "model" in query else bool(ready)
        return words(200 if good else 503, {"ready": ready, "known": sorted(known)})

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pages is not None:
            self._pages.close()
