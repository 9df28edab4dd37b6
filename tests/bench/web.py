"""The whole cluster over HTTP, through each of its doors, against the ways without a cluster.

    wrk ──▶ door ──▶ broker ──▶ workers           each answer checked by wrk itself, see `web.lua`
    wrk ──▶ web process with the model in it
    wrk ──▶ the same servers with an empty handler

All on one machine, wrk too; every server is one process, and only one has its turn at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from tests.bench import rates, web_ours, web_rounds
from tests.bench.others import models
from tests.bench.report import LESS, MORE, Report, Row
from tests.bench.web_cluster import cluster
from tests.bench.web_models import BATCH, questions
from tests.bench.web_ours import (
    APP,
    ASGI,
    BARE,
    EMPTY_BARE,
    EMPTY_FLASK,
    EMPTY_GRANIAN,
    EMPTY_UVICORN,
    FLASK,
    FLASK_GEVENT,
    GATEWAY,
    GRANIAN,
)
from tests.bench.web_rounds import ROUNDS, Found
from tests.bench.web_server import Server, Service
from tests.bench.web_wrk import Sample

CONNECTIONS = 128
FEW, MANY = (32,), (512, 2048)

WORKERS = (2, 4)
"""Besides a single one."""

QUESTIONS = 8192
"""Each thread of wrk has half of them, and no more than 1,024 open."""

MODEL = "the model by itself"
LIMIT = f"{MODEL}, full batches in a loop"

OF_LIMIT = (MORE, 0.90)
OF_EMPTY = (MORE, 0.75)
OF_GEVENT = (LESS, 0.65)
"""CPU of the web process a request, against the same app under gunicorn's own gevent worker."""

EMPTY = {
    GRANIAN: EMPTY_GRANIAN,
    ASGI: EMPTY_UVICORN,
    BARE: EMPTY_BARE,
    APP: EMPTY_BARE,
    FLASK: EMPTY_FLASK,
}
"""The same servers with nothing behind them."""

JUDGED = (BARE, FLASK)
"""Doors that must reach a share of that."""

TOGETHER = (GATEWAY, APP, FLASK_GEVENT, *JUDGED, *(EMPTY[door] for door in JUDGED))
"""What is held against bounds, and what belongs to it: measured before all others are started. Even
servers that nobody asks take their share of caches and wake-ups, a twelfth in all."""


def run(seconds: float, parts: Sequence[str] = ()) -> Report:
    """Measure each figure for about so many seconds, in three rounds.

    parts: "sleeping", "connections", "workers", "trivial" or "bert"; all where none is given.
    """
    report = Report("web")
    bench = Bench(report, max(1, round(seconds / ROUNDS)))
    every = {
        "sleeping": bench.sleeping,
        "connections": bench.connections,
        "workers": lambda: [bench.more_workers(workers) for workers in WORKERS],
        "trivial": bench.trivial,
        "bert": lambda: _bert(report, seconds),
    }
    return web_rounds.all_parts(report, web_rounds.chosen(every, parts))


def _bert(report: Report, seconds: float) -> None:
    from tests.bench import web_bert  # and torch, which nothing else here needs

    web_bert.measure(report, seconds)


class Bench:
    """The parts of the benchmark that need no real model.

    Args:
        report: gets the rows.
        seconds: of one round, whole ones.
        rounds: for each figure.
    """

    def __init__(self, report: Report, seconds: int, rounds: int = ROUNDS) -> None:
        self.report = report
        self.seconds = seconds
        self.rounds = rounds
        self.questions = questions(QUESTIONS)

    def sleeping(self) -> None:
        """Everything with one worker, at 128 connections."""
        with cluster("sleeping", 1) as address:
            ours = web_ours.doors(address, "sleeping")
            others = [
                *web_ours.empty(),
                *web_ours.local("sleeping", 1),
                *web_ours.other_doors(address, "sleeping"),
            ]
            judged = [each for each in (*others, *ours) if each.name in TOGETHER]
            with self._started(judged) as servers:
                self._one_worker("judged", *self._against_limit(servers))
                self._own_questions("judged", servers)
            rest = [each for each in (*others, *ours) if each.name not in TOGETHER]
            with self._started(rest) as servers:
                self._one_worker("others", self._at(servers, CONNECTIONS))
                self._own_questions("others", servers)

    def connections(self) -> None:
        """The doors with one worker, at other numbers of connections."""
        with cluster("sleeping", 1) as address:
            with self._started(web_ours.doors(address, "sleeping")) as servers:
                for connections in (*FEW, *MANY):
                    self._doors(servers, connections)

    def more_workers(self, workers: int) -> None:
        """The doors, and the streamer, with as many workers."""
        with cluster("sleeping", workers) as address:
            local = web_ours.local("sleeping", workers)
            services = [*local, *web_ours.doors(address, "sleeping")]
            with self._started(services) as servers:
                found = self._at(servers, CONNECTIONS, workers=workers)
        for name, samples in found.items():
            self.report.add(web_rounds.rate(f"sleeping, {workers} workers, {name}", samples))
        self.report.add(web_rounds.bad(f"sleeping, {workers} workers", found))

    def trivial(self) -> None:
        """What is left where the model takes no time."""
        with cluster("trivial", 1) as address:
            services = [web_ours.threaded("trivial"), *web_ours.doors(address, "trivial")]
            with self._started(services) as servers:
                found = self._at(servers, CONNECTIONS, model="trivial")
        for name, samples in found.items():
            self.report.add(web_rounds.rate(f"trivial, {name}", samples))
        self.report.add(web_rounds.bad("trivial", found))

    def _started(
        self, services: Sequence[Service]
    ) -> contextlib.AbstractContextManager[dict[str, Server]]:
        return web_rounds.started(services, self.questions)

    def _against_limit(self, servers: Mapping[str, Server]) -> tuple[Found, list[Sample]]:
        ways = web_rounds.asking(servers, CONNECTIONS, self.seconds)
        found = web_rounds.take_turns({LIMIT: self._alone, **ways}, self.rounds)
        limit = found.pop(LIMIT)
        self.report.add(Row(f"sleeping, {LIMIT}", [each.rate for each in limit], "items/s"))
        self._keep(found, CONNECTIONS)
        return found, limit

    def _one_worker(self, which: str, found: Found, limit: Sequence[Sample] = ()) -> None:
        for row in one_worker(found, limit):
            self.report.add(row)
        self.report.add(web_rounds.bad(f"sleeping, {CONNECTIONS} connections, {which}", found))

    def _own_questions(self, which: str, servers: Mapping[str, Server]) -> None:
        own = web_rounds.own_questions(servers)
        title = f"sleeping, each connection's own question, {which}"
        self.report.add(web_rounds.bad(title, own))

    def _doors(self, doors: Mapping[str, Server], connections: int) -> None:
        found = self._at(doors, connections)
        for name, samples in found.items():
            row = web_rounds.rate(f"sleeping, {connections} connections, {name}", samples)
            self.report.add(row)
            if connections in MANY:
                title = f"sleeping, {connections} connections, {name}"
                self.report.add(web_rounds.tail(title, samples))
        self.report.add(web_rounds.bad(f"sleeping, {connections} connections", found))

    def _at(self, servers: Mapping[str, Server], connections: int, **common: object) -> Found:
        # Many connections take a while until each of them has had its turn some times.
        seconds = 2 * self.seconds if connections in MANY else self.seconds
        found = web_rounds.under(servers, connections, seconds, self.rounds)
        self._keep(found, connections, **common)
        return found

    def _keep(self, found: Found, connections: int, **common: object) -> None:
        told = {"model": "sleeping", "workers": 1, **common, "connections": connections}
        self.report.points += web_rounds.points(found, **told)

    def _alone(self) -> Sample:
        items = [text for text, _ in self.questions[:BATCH]]
        return Sample(rates.alone(models.sleeping, items, BATCH, self.seconds))


def one_worker(found: Found, limit: Sequence[Sample]) -> list[Row]:
    """Each server at 128 connections, against what it can reach at best.

    Where the model by itself is slower than a server with an empty handler, no door reaches that.
    """
    rows = []
    for name, samples in found.items():
        title, empty = f"sleeping, {name}", EMPTY.get(name)
        if name == GATEWAY:
            rows.append(web_rounds.rate(f"{title}, against {MODEL}", samples, limit, OF_LIMIT))
        elif empty in found:
            row = web_rounds.rate(f"{title}, against {empty}", samples, found[empty])
            rows.append(row)
            if name in JUDGED:
                least = [min(pair, key=_rate) for pair in zip(found[empty], limit, strict=True)]
                title = f"{row.name}, or {MODEL} where that is slower"
                rows.append(web_rounds.rate(title, samples, least, OF_EMPTY))
        else:
            rows.append(web_rounds.rate(title, samples))
    if FLASK in found and FLASK_GEVENT in found:
        rows.append(web_rounds.cpu(found[FLASK], found[FLASK_GEVENT], OF_GEVENT))
    return rows


def _rate(sample: Sample) -> float:
    return sample.rate
