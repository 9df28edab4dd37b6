"""Bad items among good ones: who is answered, and what it costs."""

import time
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.model import answer
from tests.chaos.stage import Stage
from tests.chaos.tally import Tally
from zstreamer.errors import PredictError

BATCH = 64

SMALL = {"beta": 0.002, "alpha": 0.001}
LARGE = {"beta": 0.050, "alpha": 0.0002}
"""Batch times that the items make, and that the batch itself makes."""

WAYS = {
    "returned": ("returned", SMALL, 0.90),
    "named": ("named", SMALL, 0.45),
    "split": ("raised", SMALL, 0.25),
    "split_large_beta": ("raised", LARGE, 0.0),
}
"""How a model fails, its times, and the share of the throughput that is promised."""

NOISY = 0.4
"""Share of that for a short run, which shares its machine with the rest of the test suite."""


def bad_items(times, options):
    """Every batch of 64 has one bad item; ``times`` counts seconds of load a way."""
    with Stage("bad-items", times, options) as stage:
        outcome = stage.outcome
        finals = []
        for name, (manner, costs, _) in WAYS.items():
            stage.worker("Flawed", batch_size=BATCH, model=name, manner=manner, **costs)
        stage.wait_warm()

        def measure(name):
            # Where no share is promised it is only the answers that count.
            seconds = 0.2 if options.quick and not WAYS[name][2] else times
            client = stage.clusters[0].client(model=name, timeout=60.0)
            return [_throughput(client, seconds, bad) for bad in (0, 1)]

        with ThreadPoolExecutor(len(WAYS) if options.quick else 1) as pool:
            measured = dict(zip(WAYS, pool.map(measure, WAYS), strict=True))
        for name, (_, _, promised) in WAYS.items():
            good, flawed = measured[name]
            share = outcome.figures[name] = flawed[1] / good[1]
            promised *= NOISY if options.quick else 1.0
            outcome.check(share >= promised, f"{name}: {share:.2f}, promised {promised:.2f}")
            outcome.figures[f"{name}_items"] = good[0].items + flawed[0].items
            finals += [good[0].summary(), flawed[0].summary()]
        outcome.check_calls(*finals)
    return outcome


def _throughput(client, seconds, bad):
    """Call with batches of which so many items are bad; returns a tally and good items a second."""
    tally = Tally()
    first = 0
    open_calls = []
    start = time.monotonic()
    end = start + seconds
    while time.monotonic() < end or open_calls:
        # Three calls keep the worker busy: one runs, one waits there, one is on its way.
        while time.monotonic() < end and len(open_calls) < 3:
            first += BATCH
            items = list(range(first, first + BATCH))
            items[:bad] = [-item for item in items[:bad]]
            tally.calls += 1
            future = client.submit(items, return_exceptions=True)
            open_calls.append((time.monotonic(), items, future))
        began, items, future = open_calls.pop(0)
        found = future.result(60)
        tally.answer(time.monotonic() - began, BATCH - bad, right=_right(items, found))
    return tally, tally.items / (time.monotonic() - start)


def _right(items, found):
    """Whether each good item has its answer, and each bad one an error of its own."""
    return all(
        isinstance(each, PredictError) and each.type in ("ValueError", "ItemError")
        if item < 0
        else each == answer(item)
        for item, each in zip(items, found, strict=True)
    )
