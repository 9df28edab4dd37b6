"""The program that makes load from threads: each caller is one, with a client that all share.

    python -m tests.bench.callers_threads client '{"address": …, "model": …}'
    python -m tests.bench.callers_threads ThreadedStreamer '{"beta": …, "alpha": …, "settings": …}'
    python -m tests.bench.callers_threads Streamer '{…}'        the same, with a process of its own

Input and output are those of `tests.bench.callers`; it makes closed loops alone. The model of a
streamer is the sleeper.
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.bench.callers import PAUSE, Spec, Tally
from tests.bench.load import together
from tests.bench.sleeper import Sleeper
from zstreamer import Client, Streamer, ThreadedStreamer
from zstreamer.errors import ZStreamerError

BATCH = 64

Predict = Callable[[list[object]], Sequence[object]]
ReadLine = Callable[[], str]


def closed_loop(predict: Predict, spec: Spec) -> Tally:
    """Make a closed loop with a thread a caller, and wait for its last answers."""
    start = time.monotonic() + spec.warm_up
    tallies = [Tally(start, start + spec.seconds) for _ in range(max(1, spec.callers))]
    threads = [
        threading.Thread(target=_call, args=(predict, spec, tally, number))
        for number, tally in enumerate(tallies[: spec.callers])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return together(tallies)


def _call(predict: Predict, spec: Spec, tally: Tally, number: int) -> None:
    items = itertools.cycle(spec.items)
    chance = random.Random(None if spec.seed is None else spec.seed + number)
    while (sent := time.monotonic()) < tally.end:
        tally.made += tally.start <= sent
        try:
            [output] = predict([next(items)])
        except ZStreamerError as error:
            tally.errors[type(error).__name__] += 1
            time.sleep(PAUSE)
            continue
        tally.answer(sent, time.monotonic(), output)
        if pause := spec.pause(chance):
            time.sleep(pause)


@contextmanager
def predicting(what: str, **settings: Any) -> Iterator[Predict]:
    """What the callers call, ready to be called."""
    if what == "client":
        with Client(settings["address"], model=settings["model"], connect_timeout=20.0) as client:
            client.wait_ready(120)
            yield client.predict
    elif what == "ThreadedStreamer":
        model = Sleeper()
        model.init_model(settings["beta"], settings["alpha"])
        with ThreadedStreamer(model, BATCH, **settings["settings"]) as streamer:
            yield streamer.predict
    else:
        times = {"beta": settings["beta"], "alpha": settings["alpha"]}
        with Streamer(
            Sleeper,
            BATCH,
            model_init_kwargs=times,
            wait_for_worker_ready=True,
            **settings["settings"],
        ) as streamer:
            yield streamer.predict


def serve(arguments: Sequence[str], read: ReadLine = sys.stdin.readline) -> None:
    """Make each load that is asked for, until the input ends.

    read: returns the next line; empty at the end.
    """
    what, settings = arguments
    with predicting(what, **json.loads(settings)) as predict:
        gc.freeze()
        while line := read():
            tally = closed_loop(predict, Spec(**json.loads(line)))
            print(json.dumps(vars(tally)), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1:])
