"""The broker's state in plain values, for `zstreamer status` and the HTTP port.

A page of it is a message that every peer takes, however many models and workers there are:

    {"broker": {…}, "models": {name: {…, "workers": [{…}, …]}}, "next": [name, position]}

`next` is there where more follows, and is asked for as `from`. Models are in the order of their
names; one whose workers do not all fit is on several pages, each with some of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import nlargest

import zstreamer
from zstreamer.broker import facts
from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.holds import names
from zstreamer.broker.models import Model
from zstreamer.broker.scheduler import Scheduler
from zstreamer.broker.workers import Worker
from zstreamer.config import BrokerConfig
from zstreamer.wire.protocol import WorkerState

PAGE = 256 * 1024
"""Bytes after which a page ends, more or less."""

_MODEL, _WORKER = 2048, 1000
"""About as many bytes as one of them takes, without words of its own."""

MAX_TROUBLE = 300
"""Characters of why a worker failed the last time: the last line says it."""

CLIENTS = 48
"""Clients that are named: those with most items open."""


def of(scheduler: Scheduler, broker: dict[str, object], now: float) -> dict[str, object]:
    """Return ``{"broker": {…}, "models": {name: {…, "workers": [{…}]}}}``; times in seconds.

    Args:
        scheduler: has the items and models.
        broker: what is to be told of the broker itself besides.
        now: monotonic seconds.
    """
    return {
        "broker": _broker(scheduler, broker),
        "models": {name: _row(scheduler, name, now) for name in _names(scheduler)},
    }


def page(
    scheduler: Scheduler, broker: dict[str, object], now: float, start: object = None
) -> dict[str, object]:
    """Return as much as one message may hold, from where an earlier page ended.

    Args:
        scheduler: has the items and models.
        broker: what is to be told of the broker itself besides.
        now: monotonic seconds.
        start: the ``next`` of that page; anything else begins at the beginning.
    """
    first, skip = _place(start)
    models: dict[str, object] = {}
    found: dict[str, object] = {"broker": _broker(scheduler, broker), "models": models}
    left = PAGE
    for name in sorted(name for name in _names(scheduler) if name >= first):
        model, alias = _meant(scheduler, name)
        left -= _cost_of(model)
        if left < 0 and models:
            found["next"] = [name, skip if name == first else 0]
            break
        workers: list[Worker] = []
        for position, worker in enumerate(() if alias else model.workers.values()):
            if name == first and position < skip:
                continue
            left -= _WORKER + worker.named + (facts.SIZE if worker.facts else 0)
            if left < 0 and (models or workers):
                found["next"] = [name, position]
                break
            workers.append(worker)
        if workers or "next" not in found:
            models[name] = {**_model(model, workers, now), **alias}
        if "next" in found:
            break
    return found


def _names(scheduler: Scheduler) -> list[str]:
    """Return the names that clients may ask for and that somebody has served."""
    aliases = scheduler.versions.aliases
    known = [name for name, m in scheduler.models.items() if m.known and name not in aliases]
    return known + [name for name in aliases if (m := scheduler.versions.find(name)) and m.known]


def _meant(scheduler: Scheduler, name: str) -> tuple[Model, dict[str, str]]:
    """Return the model of a name, and what it stands for where that is another name."""
    other = scheduler.versions.aliases.get(name)
    return scheduler.models[other or name], {"alias": other} if other else {}


def _row(scheduler: Scheduler, name: str, now: float) -> dict[str, object]:
    model, alias = _meant(scheduler, name)
    return {**_model(model, () if alias else model.workers.values(), now), **alias}


def _cost_of(model: Model) -> int:
    """About how many bytes it takes besides its workers."""
    declared = max((w.declared for w in model.workers.values()), default=0)
    return _MODEL + 4 * len(model.trouble) + declared


def _place(start: object) -> tuple[str, int]:
    match start:
        case [str() as name, int() as position]:
            return name, position
    return "", 0


def _broker(scheduler: Scheduler, broker: dict[str, object]) -> dict[str, object]:
    return {
        "release": zstreamer.__version__,
        **broker,
        "queued_items": scheduler.queued_items,
        "queued_bytes": scheduler.queued_bytes,
        "counts": dict(scheduler.counts),
    }


def _model(model: Model, workers: Iterable[Worker], now: float) -> dict[str, object]:
    return {
        "queued": model.waiting,
        "running": sum(len(w.running) for w in model.workers.values()),
        "served": model.served,
        "rate": model.measured_rate,
        "capacity": model.rate,
        "trouble": model.trouble_now(now),
        "ready": model.answers(now),
        "batch_size": max((w.batch_size for w in model.team), default=0),
        **_tally(model, now),
        **_signature(model),
        **(model.versions.row() if model.versions is not None else {}),
        "workers": [_worker(w, now) for w in workers],
    }


def _signature(model: Model) -> dict[str, object]:
    """What the newest worker that is warm says of the model's tensors; not looked into here."""
    for worker in reversed(list(model.team)):
        if worker.state is WorkerState.WARM:
            return {key: worker.info.get(key) for key in ("inputs", "outputs", "example")}
    return {"inputs": None, "outputs": None, "example": None}


def _worker(worker: Worker, now: float) -> dict[str, object]:
    info = worker.info
    return {
        **{key: info.get(key) for key in ("host", "pid", "number", "device", "release")},
        "id": worker.id,
        "version": info.get("version"),
        "key": worker.principal.name if worker.principal else None,
        "state": state(worker),
        "batch_size": worker.batch_size,
        "waiting": worker.waiting,
        "running": len(worker.running),
        "batch_age": worker.age(now),
        "served": worker.served,
        "beta_ms": worker.beta * 1000,
        "alpha_ms": worker.alpha * 1000,
        "silent": now - worker.heard,
        "drained": worker.drained,
        "failures": worker.failures,
        "trouble": worker.trouble[-MAX_TROUBLE:],
        "bytes": worker.bytes,
        "batches": worker.batches,
        "begun": worker.begun,
        **worker.facts,
    }


def _tally(model: Model, now: float) -> dict[str, object]:
    """What has become of its items since the broker's start; times in seconds."""
    tally, waits = model.tally, model.queue.items and math.isfinite(model.oldest)
    return {
        "arrived": tally.admitted,
        "answered": tally.answered,
        "failed": tally.failed_items,
        "refused": sum(tally.refused.values()),
        "seconds": tally.total.sum,
        "p50": tally.total.quantile(0.5),
        "p99": tally.total.quantile(0.99),
        "oldest": max(0.0, now - model.oldest) if waits else 0.0,
        "wanted": model.wanted.workers,
    }


def sessions(clients: Iterable[ClientRecord], config: BrokerConfig) -> dict[str, object]:
    """Return what is told of clients, of which only the busiest are named, and their window."""
    busiest = nlargest(CLIENTS, clients, key=lambda client: (_peak(client), client.sent))
    return {
        "window_items": config.window_items,
        "window_bytes": config.window_bytes,
        "sessions": [_client(client) for client in busiest],
    }


def _client(client: ClientRecord) -> dict[str, object]:
    keys = ("host", "pid", "program", "server", "release")
    return {
        **{key: client.info.get(key) for key in keys},
        "id": client.id,
        "open": len(client.items),
        "peak": _peak(client),
        "bytes": client.bytes,
        "sent": client.sent,
    }


def _peak(client: ClientRecord) -> int:
    return max(client.peak, client.peak_before)


def model_row(model: Model, now: float) -> dict[str, object]:
    """Return what the page shows of a model."""
    tally = _tally(model, now)
    return {
        "name": model.name,
        "ready": model.answers(now),
        "trouble": model.trouble_now(now)[-MAX_TROUBLE:],
        "queued": model.waiting,
        "running": model.out,
        "rate": round(model.measured_rate, 1),
        "capacity": round(model.rate, 1),
        "served": model.served,
        "workers": len(model.workers),
        "batch_size": max((w.batch_size for w in list(model.workers.values())), default=0),
        **{key: tally[key] for key in ("failed", "refused", "p50", "p99", "oldest", "wanted")},
    }


def worker_row(worker: Worker, now: float) -> dict[str, object]:
    """Return what the page shows of a worker."""
    keys = ("batches", "items", "busy", "time", "deaths", "death")
    return {
        "model": worker.model.name,
        "name": names(worker)[0],
        "device": worker.info.get("device"),
        "release": worker.info.get("release"),
        "state": state(worker),
        "drained": worker.drained,
        "held": len(worker.tickets),
        "window": worker.window_items,
        "running": len(worker.running),
        "age": round(worker.age(now), 2),
        "served": worker.served,
        "ms": round(worker.batch_time(worker.batch_size) * 1000, 2),
        "trouble": worker.trouble[-MAX_TROUBLE:],
        **{key: worker.facts[key] for key in keys if key in worker.facts},
    }


def client_row(client: ClientRecord) -> dict[str, object]:
    """Return what the page shows of a client."""
    return {key: value for key, value in _client(client).items() if value not in (None, "")}


def state(worker: Worker) -> str:
    """Return the word for how a worker is."""
    if worker.state is WorkerState.WARM and worker.drained:
        return "drained"
    if worker.state is WorkerState.WARM and not worker.ready:
        return "stalled" if worker.stalled else "late"
    return WorkerState(worker.state).name.lower()
