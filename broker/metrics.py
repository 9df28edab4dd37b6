"""What the broker's `/metrics` shows, read from the core when somebody asks.

The core counts in its own thread, and here another thread reads: numbers, and copies of dicts.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

import zstreamer
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.models import Model, mean
from zstreamer.broker.shadow import COPIED, OUTCOMES
from zstreamer.broker.snapshot import state
from zstreamer.broker.workers import Worker
from zstreamer.exposition import Exposition, Families
from zstreamer.histogram import Histogram
from zstreamer.series import BROKER
from zstreamer.wire.protocol import WorkerState

STATES = ("warm", "drained", "late", "stalled", "booting", "restarting", "draining", "broken")


class Metrics(Collector):
    """The series of one broker.

    Args:
        core: what counts.
        turns: how long the loop's turns take.
    """

    def __init__(self, core: BrokerCore, turns: Histogram) -> None:
        self._core = core
        self._turns = turns
        self._exposition = Exposition([self])

    def text(self) -> bytes:
        """Return the page."""
        return self._exposition.text()

    def collect(self) -> Iterator[Metric]:
        """Yield all families, as a registry asks for them."""
        families = Families(BROKER)
        self._broker(families)
        for model in list(self._core.models.values()):
            if model.known:
                self._model(families, model)
        return iter(families)

    def _broker(self, families: Families) -> None:
        core, scheduler = self._core, self._core.scheduler
        families.put("zstreamer_broker_info", 1, zstreamer.__version__)
        families.put("zstreamer_draining", core.draining)
        families.put("zstreamer_clients", len(core.sessions.connected))
        families.put("zstreamer_queue_bytes", scheduler.queued_bytes)
        families.put("zstreamer_queue_limit_items", core.config.max_items)
        for reason, count in list(scheduler.strangers.items()):
            families.put("zstreamer_items_refused_total", count, "", reason)
        counts = dict(scheduler.counts)
        for event in EVENTS:
            families.put("zstreamer_session_events_total", counts.get(event, 0), event)
        for tenant in core.sessions.tenants:
            for series, value in (
                ("clients", tenant.clients),
                ("open_items", tenant.open),
                ("items_admitted_total", tenant.admitted),
                ("items_refused_total", tenant.refused),
            ):
                families.put(f"zstreamer_tenant_{series}", value, tenant.name)
        for version, counts, copies in scheduler.versions.shadows():
            families.put("zstreamer_shadow_copies_total", counts[COPIED], version)
            families.put("zstreamer_shadow_open_items", copies, version)
            for outcome in OUTCOMES:
                families.put("zstreamer_shadow_items_total", counts[outcome], version, outcome)
        bundles = scheduler.bundles
        for message in ("submit", "work", "report", "answer"):
            families.put_histogram("zstreamer_bundle_items", getattr(bundles, message), message)
        families.put_histogram("zstreamer_loop_turn_seconds", self._turns)

    def _model(self, families: Families, model: Model) -> None:
        name, tally = model.name, model.tally
        for outcome, count in tally.outcomes().items():
            families.put("zstreamer_items_total", count, name, outcome)
        for reason, count in list(tally.refused.items()):
            families.put("zstreamer_items_refused_total", count, name, reason)
        for series, value in (
            ("items_admitted_total", tally.admitted),
            ("items_redispatched_total", tally.redispatched),
            ("input_bytes_total", tally.bytes_in),
            ("output_bytes_total", tally.bytes_out),
            ("model_failures_total", tally.failures),
            ("workers_lost_total", tally.lost),
            ("worker_stalls_total", tally.stalls),
            ("worker_late_total", tally.late),
            ("queue_items", model.queue.items + sum(map(len, list(model.suspects)))),
            ("queue_oldest_seconds", _age(model)),
            ("wanted_workers", model.wanted.workers),
        ):
            families.put(f"zstreamer_{series}", value, name)
        families.put_histogram("zstreamer_queue_seconds", tally.queued, name)
        families.put_histogram("zstreamer_item_seconds", tally.total, name)
        families.put_histogram("zstreamer_batch_items", tally.batches.sizes, name)
        for reason, count in list(tally.batches.closed.items()):
            families.put("zstreamer_batches_closed_total", count, name, reason)
        families.put("zstreamer_batch_cost_total", tally.batches.cost, name)
        families.put("zstreamer_batch_padded_cost_total", tally.batches.padded, name)
        families.put("zstreamer_model_ready", model.answers(time.monotonic()), name)
        self._workers(families, name, list(model.workers.values()))

    def _workers(self, families: Families, name: str, workers: list[Worker]) -> None:
        states = Counter(state(each) for each in workers)
        for each in STATES:
            families.put("zstreamer_workers", states[each], name, each)
        warm = [each for each in workers if each.state is WorkerState.WARM]
        timed = [each for each in warm if each.beta or each.alpha]
        rates = [each.batch_size / each.batch_time(each.batch_size) for each in timed]
        for series, value in (
            ("window_items", sum(len(each.tickets) for each in workers)),
            ("window_limit_items", sum(each.window_items for each in warm)),
            ("running_items", sum(len(each.running) for each in workers)),
            ("batch_beta_seconds", mean([each.beta for each in timed])),
            ("batch_alpha_seconds", mean([each.alpha for each in timed])),
            ("capacity_items_per_second", mean(rates) * len(warm)),
        ):
            families.put(f"zstreamer_{series}", value, name)


def _age(model: Model) -> float:
    """Seconds that the oldest item in a queue has waited."""
    oldest = model.oldest
    return (
        max(0.0, time.monotonic() - oldest) if math.isfinite(oldest) and model.queue.items else 0.0
    )


EVENTS = (
    "refused",
    "malformed",
    "deaf",
    "resets",
    "stuck",
    "failures",
    "fenced",
    "unwanted",
)
"""What `BrokerCore.counts` has besides what each model counts."""
