"""The broker's state in plain values, for `zstreamer status` and the HTTP port.

A page of it is a message that every peer takes, however many models and workers there are:

    {"broker": {…}, "models": {name: {…, "workers": [{…}, …]}}, "next": [name, position]}

`next` is there where more follows, and is asked for as `from`. Models are in the order of their
names; one whose workers do not all fit is on several pages, each with some of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import zstreamer
from zstreamer.protocol import WorkerState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.core import BrokerCore
    from broker.models import Model
    from broker.workers import Worker

PAGE = 256 * 1024
"""Bytes after which a page ends, more or less."""

_MODEL, _WORKER = 2048, 320
"""About as many bytes as one of them takes, without words of its own."""


def of(core: BrokerCore, now: float) -> dict[str, object]:
    """Return ``{"broker": {…}, "models": {name: {…, "workers": [{…}]}}}``; times in seconds."""
    models = (m for m in core.models.values() if m.known)
    return {
        "broker": _broker(core, now),
        "models": {m.name: _model(m, m.workers.values(), now) for m in models},
    }


def page(core: BrokerCore, now: float, start: object = None) -> dict[str, object]:
    """Return as much as one message may hold, from where an earlier page ended.

    Args:
        core: whose state.
        now: monotonic seconds.
        start: the ``next`` of that page; anything else begins at the beginning.
    """
    first, skip = _place(start)
    models: dict[str, object] = {}
    found: dict[str, object] = {"broker": _broker(core, now), "models": models}
    left = PAGE
    for name in sorted(name for name, m in core.models.items() if m.known and name >= first):
        model = core.models[name]
        left -= _cost_of(model)
        if left < 0 and models:
            found["next"] = [name, skip if name == first else 0]
            break
        workers: list[Worker] = []
        for position, worker in enumerate(model.workers.values()):
            if name == first and position < skip:
                continue
            left -= _WORKER + worker.words
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


def largest(core: BrokerCore, count: int) -> list[tuple[int, str]]:
    """Return the bytes that the largest sessions hold here, and who they are."""
    found = [
        (c.unread + c.bytes + c.receiver.bytes, f"client={c.id} {_who(c.info)}")
        for c in core.clients.values()
    ]
    found += [
        (
            w.told + w.bytes + w.receiver.bytes,
            f"worker={w.id} model={w.model.name!r} {_who(w.info)}",
        )
        for w in core.workers.values()
    ]
    return sorted(found, reverse=True)[:count]


def _who(info: dict[str, object]) -> str:
    return f"host={info.get('host')!r} pid={info.get('pid')}"


def _place(start: object) -> tuple[str, int]:
    match start:
        case [str() as name, int() as position]:
            return name, position
    return "", 0


def _broker(core: BrokerCore, now: float) -> dict[str, object]:
    return {
        "release": zstreamer.__version__,
        "epoch": core.epoch,
        "uptime": now - core.born,
        "draining": core.draining,
        "clients": len(core.client_sessions),
        "workers": len(core.workers),
        "queued_items": core.scheduler.queued_items,
        "queued_bytes": core.scheduler.queued_bytes,
        "counts": dict(core.counts),
    }


def _model(model: Model, workers: Iterable[Worker], now: float) -> dict[str, object]:
    return {
        "queued": model.waiting,
        "running": sum(len(w.running) for w in model.workers.values()),
        "served": model.served,
        "rate": model.measured_rate,
        "capacity": model.rate,
        "trouble": "" if model.warm else model.trouble,
        "ready": model.warm,
        "batch_size": max((w.batch_size for w in model.workers.values()), default=0),
        **_signature(model),
        "workers": [_worker(w, now) for w in workers],
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
        "state": "stalled" if worker.stalled else WorkerState(worker.state).name.lower(),
        "batch_size": worker.batch_size,
        "waiting": worker.waiting,
        "running": len(worker.running),
        "served": worker.served,
        "beta_ms": worker.beta * 1000,
        "alpha_ms": worker.alpha * 1000,
        "silent": now - worker.heard,
    }
