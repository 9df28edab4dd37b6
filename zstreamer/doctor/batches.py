"""Why batches are small, and whether more comes than can be done. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from zstreamer.doctor.evidence import Broker, Model, Row, number
from zstreamer.doctor.finding import Finding

LEAST_BATCHES = 5
"""Batches without which nothing is said of their size."""

SMALL = 0.6
"""Of batch_size, the mean batch from which on batches are not small."""

BUSY = 0.5
"""Share of the time that a model must run for the size of its batches to matter."""

BUSY_ALONE = 0.2
"""The same where callers come one after another: then the model waits for them, too."""

STEADY = 0.6
"""Mean items open over the most that were: from here on the same callers come back and back."""

MOSTLY = 0.5
"""Share of batches that one reason must close to be called the reason."""

GROWTH = 1.2
"""Times by which a queue must grow while it is looked at."""

FULL = 0.9
"""Share of a window from which on it counts as full."""


def findings(broker: Broker, model: Model) -> Iterator[Finding]:
    """Yield what is wrong with the load of one model."""
    yield from _overload(model)
    if found := _small(broker, model):
        yield found


def _overload(model: Model) -> Iterator[Finding]:
    refused = model.grown("refused")
    come, done = model.rate("arrived"), model.rate("answered")
    rates = f"{come:,.0f} items/s come and {done:,.0f}/s are answered"
    if refused:
        yield Finding(
            "refused",
            75,
            f"the broker refuses items for model {model.name}: more comes than its workers can do",
            f"{refused:,.0f} items were refused in {model.seconds:.1f} s; {rates}; "
            f"{model.queued[-1]:,.0f} wait; the workers are busy {model.busy:.0%} of the time",
            "add workers, or have callers send less or wait longer (timeout); the error's "
            "retry_after says when trying again makes sense",
            model.name,
        )
        return
    first, last = _ends(model.queued)
    if last > GROWTH * first + max(20, model.batch_size) and come > 1.05 * done:
        yield Finding(
            "queue-grows",
            74,
            f"the queue of model {model.name} grows: more comes than its workers can do",
            f"it went from {first:,.0f} to {last:,.0f} items in {model.seconds:.1f} s; {rates}; "
            f"the oldest item has waited {number(model.last.get('oldest')):.1f} s; the workers are "
            f"busy {model.busy:.0%} of the time",
            f"add workers for model {model.name} (zstreamer worker … --num), or send less",
            model.name,
        )


def _ends(values: list[float]) -> tuple[float, float]:
    """Return the mean of the first and of the last third; 0 where they are too few."""
    third = len(values) // 3
    if not third:
        return 0.0, 0.0
    return sum(values[:third]) / third, sum(values[-third:]) / third


def _small(broker: Broker, model: Model) -> Finding | None:
    size = model.batch_size
    if size < 2 or model.batches < LEAST_BATCHES or model.mean_batch >= SMALL * size:
        return None
    closed = model.closed
    if model.busy >= BUSY:
        if closed.get("cost", 0.0) >= MOSTLY:
            return _cost(model)
        if closed.get("target", 0.0) >= MOSTLY:
            return _target(model)
    if found := _window(broker, model):
        return found
    if model.open_peak >= size or model.open_mean < STEADY * model.open_peak:
        return None
    return _callers(broker, model)


def _ran(model: Model) -> str:
    return (
        f"{model.batches:,.0f} batches had {model.mean_batch:.1f} of {model.batch_size} items on "
        f"average; the model ran {model.busy:.0%} of the time"
    )


def _cost(model: Model) -> Finding:
    return Finding(
        "cost",
        45,
        f"batches of model {model.name} are small because max_batch_cost closes them",
        f"{_ran(model)}; {model.closed['cost']:.0%} of the batches ended at the cost limit",
        "raise --max-batch-cost of the workers as far as memory allows, or check that the model's "
        "cost() counts what really costs",
        model.name,
    )


def _target(model: Model) -> Finding:
    return Finding(
        "latency-target",
        44,
        f"batches of model {model.name} are small because latency_target closes them",
        f"{_ran(model)}; {model.closed['target']:.0%} of the batches ended at the latency target",
        "raise --latency-target of the workers if callers can wait longer, or add workers",
        model.name,
    )


def _window(broker: Broker, model: Model) -> Finding | None:
    items, size = number(broker.last.get("window_items")), number(broker.last.get("window_bytes"))
    wanted = model.batch_size * max(1, len(model.warm))
    full = [each for each in broker.sessions if 0 < FULL * items <= each["peak"] and each["sent"]]
    heavy = [each for each in broker.sessions if 0 < size <= _with_one_more(each) and each["sent"]]
    stuffed = [w for w in model.warm if 0 < FULL * size <= w.value("bytes")]
    if full and items < wanted:
        limit, flag, who = f"{items:,.0f} items", "--window-items", full[0]
    elif heavy or stuffed:
        limit, flag = f"{size:,.0f} bytes", "--window-bytes"
        who = heavy[0] if heavy else stuffed[0].last
    else:
        return None
    return Finding(
        "window",
        48,
        f"batches of model {model.name} are small because a window of {limit} holds items back",
        f"{_ran(model)}; {who.get('host')}:{who.get('pid')} had its window full, and "
        f"{wanted:,} items would fill a batch of each worker",
        f"raise {flag} of the broker",
        model.name,
    )


def _with_one_more(session: Row) -> float:
    """Return the bytes that a client would have open with another item like those it has."""
    return number(session["bytes"]) * (1 + 1 / max(1.0, number(session["peak"])))


def _callers(broker: Broker, model: Model) -> Finding | None:
    active = [each for each in broker.sessions if each["sent"]]
    sync = [each for each in active if each.get("server") == "sync"]
    steady = f"{_ran(model)}; at most {model.open_peak} items were open at once"
    if sync and 2 * len(sync) >= len(active) and model.busy >= BUSY_ALONE:
        return Finding(
            "sync-gunicorn",
            43,
            f"model {model.name} is called from sync gunicorn workers, which have one request open "
            "at a time: batches stay small",
            f"{steady}; {len(sync)} of {len(active)} calling processes are gunicorn's sync workers",
            "start gunicorn with -k zstreamer.web.gunicorn.Worker, or with -k gthread and as many "
            "threads in all as a batch has items",
            model.name,
        )
    if model.open_peak <= 1 and model.busy >= BUSY_ALONE:
        return Finding(
            "one-by-one",
            41,
            f"callers of model {model.name} come one after another: batches hold a single item",
            steady,
            "pass many inputs to one predict(), or call from many threads, greenlets or tasks at "
            "once; predict() in a loop over inputs can never fill a batch",
            model.name,
        )
    if model.open_peak > 1 and model.busy >= BUSY:
        return Finding(
            "few-callers",
            42,
            f"fewer callers of model {model.name} are open at once than a batch has places",
            f"{steady}, by {len(active)} calling processes",
            "raise the number of threads or connections of the web server to at least "
            f"{model.batch_size}, or use one that has thousands "
            "(gunicorn -k zstreamer.web.gunicorn.Worker, asyncio)",
            model.name,
        )
    return None
