"""The program that calls: threads that call without pause, or a flood at a fixed rate.

    python -m tests.chaos.callers '{"address": …, "model": …, …}'

Where the address is a web server's, they call through its app. It says a few times a second how
far it is, as lines of JSON on its output; when its input ends it stops, waits for what is open and
prints the whole tally. Under "gevent" everything is patched first, and the threads are greenlets.
"""

# ruff: noqa: E402 - the patch must come before whatever it patches is imported

import json
import sys

SPEC = json.loads(sys.argv[1]) if __name__ == "__main__" else {}
if SPEC.get("gevent"):
    from gevent import monkey

    monkey.patch_all()

import itertools
import random
import select
import threading
import time

from tests.chaos.model import answer
from tests.chaos.tables import table_sizes
from tests.chaos.tally import LATE, Tally
from tests.chaos.web import WebClient
from zstreamer import Client
from zstreamer.errors import ZStreamerError

REPORT = 0.1
"""Seconds between two lines."""


class Callers:
    """Threads that each make one call after another.

    Args:
        threads: how many.
        most: items of the largest calls; sizes are drawn from 1 to this.
        timeout: seconds that each call may take.
        first: number of the first item; each item has a number of its own.
    """

    def __init__(self, client, *, threads, most, timeout, first, idempotent=True):
        self._client = client
        self._most = most
        self._timeout = timeout
        self._numbers = itertools.count(first)
        self._idempotent = idempotent
        self._ending = threading.Event()
        self.tallies = [Tally() for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._run, args=(tally,), daemon=True) for tally in self.tallies
        ]

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Let the open calls end; those that do not are hung."""
        self._ending.set()
        end = time.monotonic() + self._timeout + LATE
        for thread, tally in zip(self._threads, self.tallies, strict=True):
            thread.join(max(0.0, end - time.monotonic()))
            tally.hung += thread.is_alive()

    def _run(self, tally):
        while not self._ending.is_set():
            size = random.randint(1, self._most)
            items = list(itertools.islice(self._numbers, size))
            tally.calls += 1
            start = time.monotonic()
            try:
                found = self._client.predict(
                    items, timeout=self._timeout, idempotent=self._idempotent
                )
            except Exception as error:
                seconds = time.monotonic() - start
                tally.fail(seconds, error)
                if not isinstance(error, ZStreamerError):
                    raise
                time.sleep(0.01)  # a refusal must not become a busy loop
            else:
                seconds = time.monotonic() - start
                tally.answer(seconds, size, right=found == [answer(item) for item in items])
            tally.hung += seconds > self._timeout + LATE


class Flood:
    """Calls at a fixed rate, whatever becomes of those before.

    Args:
        rate: items a second.
        most: items of each call.
        timeout, first: as above.
    """

    def __init__(self, client, *, rate, most, timeout, first):
        self._client = client
        self._pause = most / rate
        self._most = most
        self._timeout = timeout
        self._numbers = itertools.count(first)
        self._ending = threading.Event()
        self.tallies = [Tally()]
        self._open = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        """Stop and wait for what is open; what does not end is hung."""
        self._ending.set()
        self._thread.join()
        [tally] = self.tallies
        end = time.monotonic() + self._timeout + LATE
        while self._left() and time.monotonic() < end:
            time.sleep(0.05)
        tally.hung += self._left()

    def _left(self):
        [tally] = self.tallies
        return tally.calls - tally.answered - sum(tally.errors.values())

    def _run(self):
        [tally] = self.tallies
        due = time.monotonic()
        while not self._ending.is_set():
            time.sleep(max(0.0, due - time.monotonic()))
            due += self._pause
            items = list(itertools.islice(self._numbers, self._most))
            tally.calls += 1
            start = time.monotonic()
            future = self._client.submit(items, timeout=self._timeout)
            future.add_done_callback(
                lambda future, start=start, items=items: self._ended(tally, start, items, future)
            )

    def _ended(self, tally, start, items, future):
        seconds = time.monotonic() - start
        error = future.exception()
        if error is not None:
            tally.fail(seconds, error)
        else:
            right = future.result() == [answer(item) for item in items]
            tally.answer(seconds, len(items), right=right)
        tally.hung += seconds > self._timeout + LATE


def open_client(address, model, **spec):
    """Return a client of the brokers, or of a web server whose app embeds such clients."""
    if address.startswith("http:"):
        patience = spec["timeout"] + 2 * LATE
        return WebClient(address, connections=spec["threads"], timeout=patience)
    return Client(address, model=model, connect_timeout=20.0)


def main():
    """Call until the input ends; print what became of it."""
    spec = dict(SPEC)
    spec.pop("gevent", None)
    client = open_client(**spec)
    del spec["address"], spec["model"]
    client.wait_ready(30)
    held = spec.pop("held", False)
    work = (Flood if "rate" in spec else Callers)(client, **spec)
    tell({"at": time.monotonic(), **sums(work.tallies)})
    if held:
        sys.stdin.readline()
    work.start()
    while not select.select([sys.stdin], [], [], REPORT)[0]:
        tell({"at": time.monotonic(), **sums(work.tallies)})
    work.stop()
    total = Tally()
    for tally in work.tallies:
        total.add(tally)
    time.sleep(0.2)  # the last answers may still be settled
    left = client.table_sizes() if isinstance(client, WebClient) else table_sizes(client)
    tell({"final": {**total.summary(), "tables": left}})
    client.close()


def sums(tallies):
    """Return how far all are."""
    errors = sum(sum(each.errors.values()) for each in tallies)
    return {
        "calls": sum(each.answered for each in tallies) + errors,
        "items": sum(each.items for each in tallies),
        "errors": errors,
    }


def tell(line):
    """Write one line for whoever started this."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
