"""The broker's state in plain values, for `zstreamer status` and the HTTP port.

A page of it is a message that every peer takes, however many models and workers there are:

    {"broker": {…}, "models": {name: {…, "workers": [{…}, …]}}, "next": [name, position]}

`next` is there where more follows, and is asked for as `from`. Models are in the order of their
names; one whose workers do not all fit is on several pages, each with some of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import zstreamer
from zstreamer.broker.models import Model
from zstreamer.broker.scheduler import Scheduler
from zstreamer.broker.workers import Worker
from zstreamer.wire.protocol import WorkerState

PAGE = 256 * 1024
"""Bytes after which a page ends, more or less."""

_MODEL, _WORKER = 2048, 320
"""About as many bytes as one of them takes, without words of its own."""


def of(scheduler: Scheduler, broker: dict[str, object], now: float) -> dict[str, object]:
    """Return ``{"broker": {…}, "models": {name: {…, "workers": [{…}]}}}``; times in seconds.

    Args:
        scheduler: has the items and models.
        broker: what is to be told of the broker itself besides.
        now: monotonic seconds.
    """
    models = (m for m in scheduler.models.values() if m.known)
    return {
        "broker": _broker(scheduler, broker),
        "models": {m.name: _model(m, m.workers.values(), now) for m in models},
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
    known = (name for name, m in scheduler.models.items() if m.known and name >= first)
    for name in sorted(known):
        model = scheduler.models[name]
        left -= _cost_of(model)
        if left < 0 and models:
            found["next"] = [name, skip if name == first else 0]
            break
        workers: list[Worker] = []
        for position, worker in enumerate(model.workers.values()):
            if name == first and position < skip:
                continue
            left -= _WORKER + worker.named
            if left < 0 and (models or workers):
                found["next"] = [name, position]
                break
            workers.append(worker)
        if workers or "next" not in found:
            models[name] = _model(model, workers, now)
        if "next" in found:
            break
    return found


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
        "batch_size": max((w.batch_size for w in model.workers.values()), default=0),
        **_signature(model),
        "workers": [_worker(w, now) for w in workers],
    }


def _signature(model: Model) -> dict[str, object]:
    """What the newest worker that is warm says of the model's tensors; not looked into here."""
    for worker in reversed(model.workers.values()):
        if worker.state is WorkerState.WARM:
            return {key: worker.info.get(key) for key in ("inputs", "outputs", "example")}
    return {"inputs": None, "outputs": None, "example": None}


def _worker(worker: Worker, now: float) -> dict[str, object]:
    info = worker.info
    return {
        **{key: info.get(key) for key in ("host", "pid", "number", "device")},
        "id": worker.id,
        "state": state(worker),
        "batch_size": worker.batch_size,
        "waiting": worker.waiting,
        "running": len(worker.running),
        "batch_age": worker.age(now),
        "served": worker.served,
        "beta_ms": worker.beta * 1000,
        "alpha_ms": worker.alpha * 1000,
        "silent": now - worker.heard,
    }


def state(worker: Worker) -> str:
    """Return the word for how a worker is."""
    if worker.state is WorkerState.WARM and not worker.ready:
        return "stalled" if worker.stalled else "late"
    return WorkerState(worker.state).name.lower()
