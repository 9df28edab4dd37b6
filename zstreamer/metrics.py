"""What a `Client` in a program of one's own shows Prometheus, beside the program's own metrics.

    client = zstreamer.Client("tcp://10.0.0.5:7787")
    zstreamer.metrics.ClientCollector(client)      # in prometheus_client's registry from now on

Where several processes share ``PROMETHEUS_MULTIPROC_DIR``, as gunicorn's workers do, the figures go
through its files like all others, and `prometheus_client.multiprocess` adds them up.
"""

from __future__ import annotations

import os
import weakref
from collections import Counter as Tally
from collections.abc import Collection, Iterator
from typing import TypeAlias

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from zstreamer.client.aio import AsyncClient
from zstreamer.client.client import Client
from zstreamer.client.tally import News
from zstreamer.client.tally import Tally as CallTally
from zstreamer.exposition import Families
from zstreamer.histogram import SECONDS
from zstreamer.series import CLIENT

AnyClient: TypeAlias = "Client | AsyncClient"


class ClientCollector(Collector):
    """Shows what became of the calls of some clients; list them all in one.

    May be made before a fork; each process tells of its own calls.

    Args:
        clients: whose calls.
        registry: where it is registered; of no account where processes share files.
    """

    def __init__(self, *clients: AnyClient, registry: CollectorRegistry | None = REGISTRY) -> None:
        self._clients: weakref.WeakSet[AnyClient] = weakref.WeakSet()
        self._past = CallTally()
        self._shared = None
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            self._shared = _Shared(self._clients)
        elif registry is not None:
            registry.register(self)
        for each in clients:
            self.add(each)

    def add(self, client: AnyClient) -> None:
        """Show the calls of one more client; to be added before its first call."""
        self._clients.add(client)
        if self._shared is not None:
            client.tallies.flush = self._shared.flush

    def retire(self, client: AnyClient) -> None:
        """Keep what a client has counted that was closed and is not used any more."""
        if client in self._clients:
            self._clients.discard(client)
            self._past.add(client.tallies.total())

    def describe(self) -> Iterator[Metric]:
        """Yield the families without samples, for the registry to know their names."""
        return iter(Families(CLIENT))

    def collect(self) -> Iterator[Metric]:
        """Yield all families, as a registry asks for them."""
        total = CallTally()
        total.add(self._past)
        for each in list(self._clients):
            total.add(each.tallies.total())
        families = Families(CLIENT)
        for (model, outcome), count in total.calls.items():
            families.put("zstreamer_client_calls_total", count, model, outcome)
        for (model, outcome), count in total.items.items():
            families.put("zstreamer_client_items_total", count, model, outcome)
        for model, found in total.seconds.items():
            families.put_histogram("zstreamer_client_call_seconds", found, model)
        families.put("zstreamer_client_open_calls", sum(each.open_calls for each in self._clients))
        families.put("zstreamer_client_brokers", sum(each.connected for each in self._clients))
        return iter(families)


class _Shared:
    """The same through files that processes share, brought up to date some times a second."""

    def __init__(self, clients: Collection[AnyClient]) -> None:
        self._clients = clients
        series = {each.name: each for each in CLIENT}

        def words(name: str) -> tuple[str, str, list[str]]:
            each = series[f"zstreamer_client_{name}"]
            return each.name.removesuffix("_total"), each.words, list(each.labels)

        self._calls = Counter(*words("calls_total"), registry=None)
        self._items = Counter(*words("items_total"), registry=None)
        self._seconds = Histogram(*words("call_seconds"), registry=None, buckets=SECONDS)
        self._open = Gauge(*words("open_calls"), registry=None, multiprocess_mode="livesum")
        self._brokers = Gauge(*words("brokers"), registry=None, multiprocess_mode="livesum")

    def flush(self, news: list[News]) -> None:
        """Enter calls that have ended; called in the thread of their driver."""
        calls: Tally[tuple[str, str]] = Tally()
        items: Tally[tuple[str, str]] = Tally()
        for model, outcome, counts, seconds in news:
            calls[model, outcome] += 1
            for each, count in counts.items():
                items[model, each] += count
            self._seconds.labels(model).observe(seconds)
        for labels, count in calls.items():
            self._calls.labels(*labels).inc(count)
        for labels, count in items.items():
            self._items.labels(*labels).inc(count)
        self._open.set(sum(each.open_calls for each in self._clients))
        self._brokers.set(sum(each.connected for each in self._clients))
