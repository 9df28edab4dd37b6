"""What a broker's snapshot says about models, read with care: it came over a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from zstreamer.errors import ModelNotFound
from zstreamer.web.api.problem import without_traceback

Snapshot: TypeAlias = "dict[str, object]"
Model: TypeAlias = "Mapping[str, object]"


def served(snapshot: Snapshot) -> dict[str, Model]:
    """Return what is known of each model, by name."""
    models = snapshot.get("models")
    if not isinstance(models, Mapping):
        return {}
    return {
        name: each
        for name, each in models.items()
        if isinstance(name, str) and isinstance(each, Mapping)
    }


def merged(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Return what several brokers know as one snapshot; the first names what they agree on."""
    if len(snapshots) == 1:
        return snapshots[0]
    models: dict[str, Model] = {}
    for snapshot in snapshots:
        for name, each in served(snapshot).items():
            models[name] = _both(models[name], each) if name in models else each
    return {**snapshots[0], "models": models, "broker": _brokers(snapshots)}


def _brokers(snapshots: Sequence[Snapshot]) -> dict[str, object]:
    """What is told of the first broker, with the hosts of models that any of them knows."""
    found: dict[str, object] = {}
    hosts: list[object] = []
    for each in reversed(snapshots):
        broker = each.get("broker")
        found = dict(broker) if isinstance(broker, Mapping) else {}
        known = found.get("repository")
        hosts += known if isinstance(known, list) else []
    return {**found, "repository": hosts}


def _both(one: Model, other: Model) -> Model:
    """What two brokers say of one model: the readier of them, with the sum of their items."""
    better = other if is_ready(other) and not is_ready(one) else one
    sums = {key: _number(one.get(key)) + _number(other.get(key)) for key in _SUMS}
    return {**better, **sums, "workers": _workers(one, other)}


_SUMS = ("queued", "running", "served", "rate")


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def _workers(*models: Model) -> list[object]:
    """All workers, of which each may be known to several brokers."""
    found: dict[object, object] = {}
    for model in models:
        workers = model.get("workers")
        for each in workers if isinstance(workers, list) else ():
            if isinstance(each, Mapping):
                found[repr([each.get(key) for key in ("host", "pid", "number")])] = each
    return list(found.values())


def named(snapshot: Snapshot, name: str) -> Model:
    """Return what is known of one model; raises ModelNotFound, which lists those there are."""
    models = served(snapshot)
    if name not in models:
        known = sorted(models)
        words = f"the models are {', '.join(map(repr, known))}" if known else "there is none yet"
        raise ModelNotFound(f"no model {name!r}; {words}", known)
    return models[name]


def is_ready(model: Model) -> bool:
    """Whether a warm worker serves it."""
    return model.get("ready") is True


def trouble(model: Model) -> str:
    """Return why its last worker failed to start, without the traceback; empty where none did."""
    words = model.get("trouble")
    return without_traceback(words) if isinstance(words, str) else ""


def status(name: str, model: Model) -> dict[str, object]:
    """Return what a stranger may know of a model, and a page may show."""
    workers = model.get("workers")
    return {
        "name": name,
        "ready": is_ready(model),
        "trouble": trouble(model),
        "workers": len(workers) if isinstance(workers, list) else 0,
        **{key: model.get(key) for key in ("queued", "running", "served", "rate", "batch_size")},
        **{key: model.get(key) for key in ("inputs", "outputs", "example")},
    }


def readiness(snapshot: Snapshot, wanted: str) -> tuple[bool, dict[str, object]]:
    """Return whether work can be done, and the words for it.

    Args:
        snapshot: of the broker.
        wanted: a model that must be ready; any one will do where there is none of this name.
    """
    models = served(snapshot)
    ready = sorted(name for name, each in models.items() if is_ready(each))
    good = wanted in ready if wanted in models else bool(ready)
    words: dict[str, object] = {"ready": good, "models": ready}
    if not good:
        words["reason"] = _reason(models, wanted)
    return good, words


def _reason(models: dict[str, Model], wanted: str) -> str:
    if wanted in models:
        why = trouble(models[wanted])
        return f"no worker is ready for model {wanted!r}" + (f": {why}" if why else "")
    if not models:
        return "no worker has connected yet; start one with `zstreamer worker MODULE:NAME`"
    return f"no worker is ready for any of the models {', '.join(sorted(models))}"
