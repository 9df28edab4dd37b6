"""The broker's state in plain values, for `zstreamer status` and the HTTP port."""

from __future__ import annotations

import zstreamer
from zstreamer.broker.models import Model
from zstreamer.broker.scheduler import Scheduler
from zstreamer.broker.workers import Worker
from zstreamer.wire.protocol import WorkerState


def of(scheduler: Scheduler, broker: dict[str, object], now: float) -> dict[str, object]:
    """Return ``{"broker": {…}, "models": {name: {…, "workers": [{…}]}}}``; times in seconds.

    Args:
        scheduler: has the items and models.
        broker: what is to be told of the broker itself besides.
        now: monotonic seconds.
    """
    return {
        "broker": {
            "release": zstreamer.__version__,
            **broker,
            "queued_items": scheduler.queued_items,
            "queued_bytes": scheduler.queued_bytes,
            "counts": dict(scheduler.counts),
        },
        "models": {m.name: _model(m, now) for m in scheduler.models.values() if m.known},
    }


def _model(model: Model, now: float) -> dict[str, object]:
    return {
        "queued": model.waiting,
        "running": sum(len(w.running) for w in model.workers.values()),
        "served": model.served,
        "rate": model.measured_rate,
        "capacity": model.rate,
        "trouble": model.trouble_now(now),
        "ready": model.ready,
        "batch_size": max((w.batch_size for w in model.workers.values()), default=0),
        **_signature(model),
        "workers": [_worker(w, now) for w in model.workers.values()],
    }


def _signature(model: Model) -> dict[str, object]:
    """What the newest worker that is warm says of the model's tensors; not looked into here."""
    for worker in reversed(model.workers.values()):
        if worker.state is WorkerState.WARM:
            return {key: worker.info.get(key) for key in ("inputs", "outputs")}
    return {"inputs": None, "outputs": None}


def _worker(worker: Worker, now: float) -> dict[str, object]:
    info = worker.info
    return {
        **{key: info.get(key) for key in ("host", "pid", "number", "device")},
        "id": worker.id,
        "state": _state(worker),
        "batch_size": worker.batch_size,
        "waiting": worker.waiting,
        "running": len(worker.running),
        "batch_age": worker.age(now),
        "served": worker.served,
        "beta_ms": worker.beta * 1000,
        "alpha_ms": worker.alpha * 1000,
        "silent": now - worker.heard,
    }


def _state(worker: Worker) -> str:
    if worker.state is WorkerState.WARM and not worker.ready:
        return "stalled" if worker.stalled else "late"
    return WorkerState(worker.state).name.lower()
