"""The program that makes load of calls of many items each: a thread a caller, one client.

    python -m tests.bench.callers_calls ADDRESS MODEL SIZE

Input and output are those of `tests.bench.callers`; each caller sends calls of SIZE items, and
every item counts as an answer.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import threading
import time

from tests.bench.callers import Spec, Tally
from tests.bench.load import together
from zstreamer import Client
from zstreamer.errors import ZStreamerError


def call(client: Client, spec: Spec, tally: Tally, size: int, first: int) -> None:
    """Call again and again until the window ends."""
    items = itertools.cycle(spec.items[first:] + spec.items[:first])
    while (sent := time.monotonic()) < tally.end:
        batch = list(itertools.islice(items, size))
        tally.made += size * (tally.start <= sent)
        try:
            client.predict(batch, timeout=spec.timeout)
        except ZStreamerError as error:
            name = type(error).__name__
            tally.errors[name] = tally.errors.get(name, 0) + 1
            continue
        now = time.monotonic()
        for _ in batch:
            tally.answer(sent, now, None)


def main(address: str, model: str, size: str) -> None:
    """Make each load that is asked for, until the input ends."""
    with Client(address, model=model, connect_timeout=20.0) as client:
        client.wait_ready(120)
        gc.freeze()
        for line in sys.stdin:
            spec = Spec(**json.loads(line))
            start = time.monotonic() + spec.warm_up
            tallies = [Tally(start, start + spec.seconds) for _ in range(max(1, spec.callers))]
            threads = [
                threading.Thread(target=call, args=(client, spec, tally, int(size), number))
                for number, tally in enumerate(tallies[: spec.callers])
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print(json.dumps(vars(together(tallies))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
