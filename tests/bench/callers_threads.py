"""The program that makes load from threads: each caller is one, with a client that all share.

    python -m tests.bench.callers_threads client '{"address": …, "model": …}'
    python -m tests.bench.callers_threads ThreadedStreamer '{"beta": …, "alpha": …, "settings": …}'
    python -m tests.bench.callers_threads Streamer '{…}'        the same, with a process of its own

Input and output are those of `tests.bench.callers`. Callers of one asyncio client are answered
together and so ask again together, in one bundle; threads do not. The model of a streamer is the
sleeper.
"""

from __future__ import annotations

import functools
import gc
import itertools
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.bench.callers import PAUSE, Spec, Tally
from tests.bench.load import together
from tests.bench.sleeper import Sleeper
from zstreamer import Client, Streamer, ThreadedStreamer
from zstreamer.errors import ZStreamerError

BATCH = 64

Predict = Callable[[list[object]], Sequence[object]]
Submit = Callable[[list[object]], "Future[list[object]]"]
ReadLine = Callable[[], str]


class Called(NamedTuple):
    """What the callers call."""

    predict: Predict
    submit: Submit


def load(called: Called, spec: Spec) -> Tally:
    """Make a load with a thread a caller and one for arrivals, and wait for the last answers."""
    start = time.monotonic() + spec.warm_up
    tallies = [Tally(start, start + spec.seconds) for _ in range(spec.callers + 1)]
    arrivals, *closed = tallies
    threads = [
        threading.Thread(target=_call, args=(called.predict, spec, tally, number))
        for number, tally in enumerate(closed)
    ]
    if spec.rate:
        threads.append(threading.Thread(target=_arrive, args=(called.submit, spec, arrivals)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return together(tallies)


def _call(predict: Predict, spec: Spec, tally: Tally, number: int) -> None:
    """One caller of the closed loop."""
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


def _arrive(submit: Submit, spec: Spec, tally: Tally) -> None:
    """The open loop, until its last item is answered."""
    items = itertools.cycle(spec.items)
    chance = random.Random(spec.seed)
    futures = []
    now = due = time.monotonic()
    while now < tally.end:
        while due <= now:
            due += chance.expovariate(spec.rate / spec.burst)
            for _ in range(spec.burst):
                tally.made += tally.start <= now
                futures.append(submit([next(items)]))
                futures[-1].add_done_callback(functools.partial(_answered, tally, now))
        time.sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
    wait(futures)


def _answered(tally: Tally, sent: float, future: Future[list[object]]) -> None:
    error = future.exception()
    if error is not None:
        tally.errors[type(error).__name__] += 1
        return
    [output] = future.result()
    tally.answer(sent, time.monotonic(), output)


@contextmanager
def calling(what: str, **settings: Any) -> Iterator[Called]:
    """What the callers call, ready to be called."""
    if what == "client":
        with Client(settings["address"], model=settings["model"], connect_timeout=20.0) as client:
            client.wait_ready(120)
            yield Called(client.predict, client.submit)
    elif what == "ThreadedStreamer":
        model = Sleeper()
        model.init_model(settings["beta"], settings["alpha"])
        with ThreadedStreamer(model, BATCH, **settings["settings"]) as streamer:
            yield Called(streamer.predict, streamer.submit)
    else:
        times = {"beta": settings["beta"], "alpha": settings["alpha"]}
        with Streamer(
            Sleeper,
            BATCH,
            model_init_kwargs=times,
            wait_for_worker_ready=True,
            **settings["settings"],
        ) as streamer:
            yield Called(streamer.predict, streamer.submit)


def serve(arguments: Sequence[str], read: ReadLine = sys.stdin.readline) -> None:
    """Make each load that is asked for, until the input ends.

    read: returns the next line; empty at the end.
    """
    what, settings = arguments
    with calling(what, **json.loads(settings)) as called:
        gc.freeze()
        while line := read():
            tally = load(called, Spec(**json.loads(line)))
            print(json.dumps(vars(tally)), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1:])
