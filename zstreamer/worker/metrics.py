"""A worker's own pages: health and readiness for probes, metrics for Prometheus.

/healthz   200 while the agent's loop turns
/readyz    200 while the model is warm and answers, and a broker is connected; else 503, with why
/metrics   see docs/metrics.md

The agent counts in its own thread; here another one reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

import zstreamer
from zstreamer.config import AgentConfig, stays_on_machine
from zstreamer.exposition import CONTENT_TYPE, Exposition, Families
from zstreamer.histogram import TURNS, Histogram
from zstreamer.keys.reader import CallersReader
from zstreamer.series import WORKER
from zstreamer.system.pages import Lock, Page, Pages, Query, words
from zstreamer.wire.link import LinkState
from zstreamer.wire.protocol import WorkerState
from zstreamer.worker.core import WorkerCore
from zstreamer.worker.gpu import Gpus

STUCK = 5.0
"""Seconds without a turn after which the agent's loop counts as stuck; it turns once a second."""

STILL, OVER, OVER_FACTOR = 1.7, 1.4, 3.0
"""The same for readiness; and seconds that a batch may run that usually takes less than a third of
them, else so many times as long as usual."""


class WorkerPages(Collector):
    """The pages of one worker, served until closed.

    Args:
        config: says where.
        core: what is looked at.

    Raises:
        OSError: the address cannot be bound.

    Attributes:
        turns: how long the loop's turns take.
    """

    def __init__(self, config: AgentConfig, core: WorkerCore) -> None:
        self._core = core
        self._config = config
        self.turns = Histogram(TURNS)
        self._turned = time.monotonic()
        self._gpus = Gpus(config.device)
        exposition = Exposition([self])
        self._pages = Pages(
            config.metrics_host,
            config.metrics_port + config.number,
            {
                "/healthz": self._health,
                "/readyz": self._ready,
                "/metrics": lambda _: Page(200, exposition.text(), CONTENT_TYPE),
            },
            _lock(config),
        )

    @property
    def port(self) -> int:
        """The port that they are served at."""
        return self._pages.port

    def turned(self, begun: float, now: float) -> None:
        """The loop has turned: it waited until `begun` and is done now (monotonic seconds)."""
        self._turned = now
        self.turns.observe(now - begun)

    def close(self) -> None:
        """Serve nothing any more."""
        self._pages.close()

    def _health(self, _: Query) -> Page:
        stuck = time.monotonic() - self._turned > STUCK
        return words(503 if stuck else 200, {"ok": not stuck})

    def _ready(self, _: Query) -> Page:
        why = self._trouble(time.monotonic())
        body = {"ready": not why, "model": self._config.served, **({"reason": why} if why else {})}
        return words(503 if why else 200, body)

    def _trouble(self, now: float) -> str:
        """Say why this worker cannot answer; empty where it can."""
        core = self._core
        items, since = core.backlog.patience.batch
        if core.state is not WorkerState.WARM:
            last = core.why.rstrip().rpartition("\n")[2]
            return f"the worker is {core.state.name.lower()}" + (f": {last:.300}" if last else "")
        if now - self._turned > STILL:
            return f"the agent's loop has not turned for {now - self._turned:.1f} s"
        usual = core.backlog.time(items)
        if items and usual and now - since > max(OVER, OVER_FACTOR * usual):
            return f"a batch has run for {now - since:.1f} s; usual are {usual:.3f} s"
        if not self._connected():
            return "no broker is connected"
        return ""

    def _connected(self) -> int:
        return sum(link.state is LinkState.READY for link in self._core.links)

    def collect(self) -> Iterator[Metric]:
        """Yield all families, as a registry asks for them."""
        families, now = Families(WORKER), time.monotonic()
        backlog, model = self._core.backlog, self._config.served
        tally, measures = backlog.tally, backlog.measures
        items, since = backlog.patience.batch
        for outcome, count in {"ok": 0, **measures.outcomes}.items():
            families.put("zstreamer_worker_items_total", count, model, outcome)
        for reason, count in list(tally.closed.items()):
            families.put("zstreamer_worker_batches_closed_total", count, model, reason)
        families.put(
            "zstreamer_worker_info",
            1,
            zstreamer.__version__,
            model,
            self._config.device,
        )
        busy = tally.busy + (now - since if items else 0.0)
        for series, value in (
            ("ready", not self._trouble(now)),
            ("brokers", self._connected()),
            ("waiting_items", max(0, len(backlog.jobs) - items)),
            ("running_items", items),
            ("batch_running_seconds", now - since if items else 0.0),
            ("busy_seconds_total", busy),
            ("batch_cost_total", tally.cost),
            ("batch_padded_cost_total", tally.padded),
            ("batch_beta_seconds", backlog.time.beta),
            ("batch_alpha_seconds", backlog.time.alpha),
            ("model_deaths_total", tally.deaths),
        ):
            families.put(f"zstreamer_worker_{series}", value, model)
        for series, found in (
            ("wait_seconds", measures.waits),
            ("batch_items", measures.sizes),
            ("predict_seconds", measures.predict),
            ("loop_turn_seconds", self.turns),
        ):
            families.put_histogram(f"zstreamer_worker_{series}", found, model)
        for gpu in self._gpus.look():
            families.put("zstreamer_gpu_utilization_ratio", gpu.utilization, gpu.name)
            families.put("zstreamer_gpu_memory_used_bytes", gpu.used, gpu.name)
            families.put("zstreamer_gpu_memory_bytes", gpu.memory, gpu.name)
        return iter(families)


def _lock(config: AgentConfig) -> Lock | None:
    """What asks for tokens beyond loopback."""
    local = stays_on_machine(f"tcp://{config.metrics_host}:{config.metrics_port}")
    if local or config.api_keys is None:
        return None
    return Lock(("/healthz", "/readyz"), CallersReader(config.api_keys))
