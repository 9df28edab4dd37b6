"""The broker's page with many workers and clients: what watchers cost, and how long a frame takes.

Watchers ask `/live` as the page does, once a second; the frames are those of the real page in
headless Chromium. The load is the same all the time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from itertools import cycle

from tests.bench import usage
from tests.bench.peers import Client, Worker
from tests.bench.report import LESS, Report, Row
from tests.bench.sockets import Ready
from tests.helpers import chromium
from tests.helpers.cluster import Cluster, free_port
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Kind

WORKERS, CLIENTS, WATCHERS = 64, 500, 3
RATE = 1_000
"""Items a second."""

ROUNDS = 5
BATCH = 16
TICK = 0.02
"""Seconds between two steps of the load."""

TURN = 1.0
"""Seconds between two questions of a watcher, as in the page."""

MAX_SHARE = 0.02
"""Of a core, for all watchers together."""

MAX_FRAME = 16.0
"""Milliseconds of a frame at 60 Hz."""

LEAST = 1.0
"""Milliseconds of a task that belongs to an update, and not to housekeeping."""

GAP = 0.3
"""Seconds without such tasks after which another update begins."""


class Informed(Worker):
    """A worker that says how it is when it is asked, as zstreamer's do."""

    def __init__(self, address: str, number: int, tally: list[int]) -> None:
        who = {
            "host": f"gpu-{number // 8:02}",
            "pid": 4000 + number,
            "device": f"cuda:{number % 8}",
        }
        super().__init__(address, 64, tally, BATCH, 0, **who)
        self._number = number
        self._items = self._batches = 0
        self._begun = time.time()

    def take(self, head: bytes) -> int:
        """Answer WORK and STATUS."""
        if head[1] == Kind.STATUS:
            self.socket.send_multipart(protocol.plain(protocol.Status(self._facts())))
        return super().take(head)

    def work(self, tickets: list[int], slots: list[bytes | None]) -> None:
        """Answer at once."""
        self._items += len(tickets)
        self._batches += 1
        super().work(tickets, slots)

    def _facts(self) -> dict[str, object]:
        return {
            "batches": self._batches,
            "items": self._items,
            "closed": {"all": self._batches},
            "sizes": {"1": self._batches},
            "busy": (time.time() - self._begun) * (0.2 + self._number % 7 / 10),
            "time": time.time(),
            "deaths": 0,
            "death": "",
            "cpus": 2,
            "memory": 200e6,
        }


class Crowd:
    """A broker with many workers and clients under a steady load, for as long as the block.

    Attributes:
        url: of its page.
    """

    def __init__(self) -> None:
        self._end = threading.Event()
        self._stack = contextlib.ExitStack()
        self._error: Exception | None = None

    def __enter__(self) -> Crowd:
        with contextlib.ExitStack() as stack:
            port = free_port()
            self.url = f"http://127.0.0.1:{port}"
            self._host = f"127.0.0.1:{port}"
            cluster = stack.enter_context(Cluster(tcp=True, http_port=port, log_level="error"))
            self._pid = cluster.broker.pid
            tally = [0] * 8
            self._workers = [Informed(cluster.worker_address, n, tally) for n in range(WORKERS)]
            self._clients = [
                Client(cluster.address, n, 64, tally, host=f"web-{n // 50:02}", pid=200 + n)
                for n in range(CLIENTS)
            ]
            for peer in (*self._workers, *self._clients):
                stack.callback(peer.close)
                peer.wait_welcome()
            for worker in self._workers:
                worker.warm()
            load = threading.Thread(target=self._load)
            load.start()
            stack.callback(load.join)
            stack.callback(self._end.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._error is not None:
            raise self._error

    def used(self, seconds: float) -> float:
        """Return the share of a core that the broker uses in the next seconds."""
        used, start = usage.all_cpu(self._pid), time.monotonic()
        time.sleep(seconds)
        return (usage.all_cpu(self._pid) - used) / (time.monotonic() - start)

    @contextlib.contextmanager
    def watched(self, number: int = WATCHERS) -> Iterator[None]:
        """So many watch for as long as the block."""
        end = threading.Event()
        threads = [
            threading.Thread(target=self._watch, args=(end, n / number)) for n in range(number)
        ]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            end.set()
            for each in threads:
                each.join()

    def _watch(self, end: threading.Event, phase: float) -> None:
        since, connection = 0.0, http.client.HTTPConnection(self._host, timeout=20)
        end.wait(phase * TURN)
        while not end.is_set():
            connection.request("GET", f"/live?since={since}", headers={"Accept-Encoding": "gzip"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.headers.get("Content-Encoding") is None:
                live = json.loads(body)
                since = live["steps"][-1][0] if live["steps"] else since
            end.wait(TURN)
        connection.close()

    def _load(self) -> None:
        try:
            self._send()
        except Exception as error:  # raised at the end of the block
            self._error = error

    def _send(self) -> None:
        ready: Ready[Client | Informed] = Ready((*self._workers, *self._clients))
        turn, ping = cycle(self._clients), 0.0
        while not self._end.is_set():
            due = time.monotonic() + TICK
            for _ in range(round(RATE * TICK)):
                client = next(turn)
                client.submit(1)
                ready.sent(client)
            if due > ping:
                ping = due + 1
                for worker in self._workers:
                    worker.ping()
                    ready.sent(worker)
            while (left := due - time.monotonic()) > 0:
                for peer in ready.wait(left):
                    peer.read()
                    ready.sent(peer)


def run(seconds: float) -> Report:
    """Measure the broker's CPU in rounds of so many seconds, then the frames."""
    report = Report("page")
    with Crowd() as crowd:
        watchers(report, crowd, seconds)
        if chromium.installed():
            frames(report, crowd, 2 * seconds)
        else:
            report.notes.append("no frames: Chromium is not installed")
    return report


def watchers(report: Report, crowd: Crowd, seconds: float) -> None:
    """Compare what the broker uses while some watch and while nobody does."""
    crowd.used(1.0)
    alone, watched = [], []
    for number in range(ROUNDS):
        for side in (alone, watched)[:: 1 if number % 2 else -1]:
            with crowd.watched() if side is watched else contextlib.nullcontext():
                crowd.used(TURN)  # what the first look costs besides
                side.append(crowd.used(seconds))
    cost = [100 * (late - early) for late, early in zip(watched, alone, strict=True)]
    peers = f"{WORKERS} workers, {CLIENTS} clients, {RATE:,} items/s"
    report.add(
        Row(
            f"{WATCHERS} watchers of the page, {peers}",
            cost,
            "% of a core",
            bound=(LESS, 100 * MAX_SHARE),
            told=f"the broker uses {100 * sum(alone) / ROUNDS:.1f} % without them",
        )
    )


def frames(report: Report, crowd: Crowd, seconds: float) -> None:
    """Look at the longest work of the page's main thread in each update, in CPU time.

    A frame is one task there: script, style, layout and paint.
    """
    with chromium.Chromium() as browser:
        browser.open(crowd.url)
        wait_drawn(browser)
        for place in ("figures", "clients"):
            browser.run(f"document.getElementById('{place}').scrollIntoView()")
            time.sleep(3 * TURN)
            browser.events.clear()
            longest = longest_tasks(browser.trace(seconds))
            report.add(
                Row(
                    f"the longest frame of an update in Chromium, {place} in sight",
                    longest,
                    "ms",
                    bound=(LESS, MAX_FRAME),
                    told=f"most {max(longest):.1f} ms of {len(longest)} updates",
                )
            )


def wait_drawn(browser: chromium.Chromium) -> None:
    """Wait until the page shows all its workers."""
    end = time.monotonic() + 30
    rows = "document.querySelectorAll('#workers-table tbody tr').length"
    while browser.run(rows) < WORKERS:
        if time.monotonic() > end:
            raise TimeoutError("the page does not show the workers")
        time.sleep(0.1)


def longest_tasks(events: list[dict]) -> list[float]:
    """Return milliseconds of CPU that the longest task of the page took, for each update."""
    main = next(
        (each["pid"], each["tid"])
        for each in events
        if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"
    )
    tasks = sorted(
        (each["ts"] / 1e6, each["tdur"] / 1e3)
        for each in events
        if each["name"] == "RunTask" and (each["pid"], each["tid"]) == main and "tdur" in each
    )
    found: list[list[float]] = []
    last = -1e9
    for start, took in tasks:
        if took < LEAST:
            continue
        if start - last > GAP:
            found.append([])
        found[-1].append(took)
        last = start
    return [max(each) for each in found]
