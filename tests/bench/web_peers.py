"""The same models behind zstreamer and its peers, all in one run: `scripts/bench peers`.

Each peer has an environment of its own (`web_environments`) and the settings that serve it best
(`web_others`). One worker and one web process each; peers that wait actively are stopped while
others have their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.bench import web_others, web_ours, web_rounds
from tests.bench.report import MORE, Report, Row
from tests.bench.web_cluster import cluster
from tests.bench.web_models import questions
from tests.bench.web_others import MOSEC, MOSEC_WAITS
from tests.bench.web_ours import BARE, EMPTY_FLASK, EMPTY_FLASK_GEVENT, FLASK, GATEWAY
from tests.bench.web_rounds import ROUNDS, Found

CONNECTIONS = (32, 128, 512)

JUDGED = 128
"""Connections at which the bounds hold."""

FEW = (2, 8, 32, 64, 128, 512)
"""Connections at which the gateway is held against mosec, with the best of its waits for each."""

MOSEC_BEST = "mosec, its best wait"

AGAINST_MOSEC: dict[str, dict[int, tuple[str, float]]] = {
    "sleeping": {
        8: (MORE, 1.2),
        32: (MORE, 1.0),
        64: (MORE, 0.95),
        128: (MORE, 1.3),
        512: (MORE, 1.3),
    },
    "slow": dict.fromkeys(FEW, (MORE, 1.0)),
}

SECONDS = {"slow": 2}
"""Of a round at least: wrk counts from its first question on, and batches are few."""

QUESTIONS = 8192

OURS = (GATEWAY, BARE, FLASK, EMPTY_FLASK, EMPTY_FLASK_GEVENT)

BEST = "service-streamer's best"

BOUNDS: dict[tuple[str, str], tuple[str, float] | None] = {
    (GATEWAY, MOSEC): (MORE, 1.3),
    (BARE, MOSEC): (MORE, 1.0),
    (FLASK, BEST): (MORE, 1.7),
    (FLASK, EMPTY_FLASK): None,
    (BEST, EMPTY_FLASK_GEVENT): None,
}
"""What is compared with what. The last two tell how much Flask and gunicorn leave to either."""


def run(seconds: float, parts: Sequence[str] = ()) -> Report:
    """Measure each figure for about so many seconds, in three rounds.

    parts: names of `Bench.parts`; all where none is given.
    """
    report = Report("peers")
    if not web_others.has_redis():
        report.notes.append(
            "redis-server is not installed: service-streamer's Redis mode is absent"
        )
    every = Bench(report, max(1, round(seconds / ROUNDS))).parts()
    return web_rounds.all_parts(report, web_rounds.chosen(every, parts))


class Bench:
    """One report.

    Args:
        report: gets the rows.
        seconds: of one round, whole ones.
        rounds: for each figure.
    """

    def __init__(self, report: Report, seconds: int, rounds: int = ROUNDS) -> None:
        self.report = report
        self.seconds = seconds
        self.rounds = rounds

    def parts(self) -> dict[str, Callable[[], None]]:
        """Return them by name, in the order in which they run."""
        return {
            "sleeping": lambda: self.model("sleeping", CONNECTIONS),
            "trivial": lambda: self.model("trivial", (JUDGED,)),
            "waits": lambda: self.waits("sleeping"),
            "waits-slow": lambda: self.waits("slow"),
        }

    def waits(self, model: str) -> None:
        """The gateway against mosec at each of its waits, from few connections to many."""
        seconds = max(self.seconds, SECONDS.get(model, 1))
        with cluster(model, 1) as address:
            services = [web_ours.gateway(address, model), *web_others.mosecs(model)]
            with web_rounds.started(services, questions(QUESTIONS)) as servers:
                for number in FEW:
                    found = web_rounds.under(servers, number, seconds, self.rounds)
                    self._add_waits(model, number, found)

    def _add_waits(self, model: str, connections: int, found: Found) -> None:
        told = f"{model}, {connections} connections"
        for row in against_mosec(told, found, AGAINST_MOSEC[model].get(connections)):
            self.report.add(row)
        for row in bad(f"{told}, waits", found):
            self.report.add(row)
        both = {GATEWAY: found[GATEWAY], MOSEC_BEST: found[best_wait(found)]}
        common = {"model": model, "workers": 1, "connections": connections, "part": "waits"}
        self.report.points += web_rounds.points(both, **common)

    def model(self, model: str, connections: Sequence[int]) -> None:
        """Everything behind one model."""
        with cluster(model, 1) as address:
            make = (web_ours.gateway, web_ours.bare, web_ours.flask)
            services = [each(address, model) for each in make] + web_others.all_of(model)
            services += web_ours.empty_flask()
            with web_rounds.started(services, questions(QUESTIONS)) as servers:
                for number in connections:
                    found = web_rounds.under(servers, number, self.seconds, self.rounds)
                    self._add(model, number, found)
                found = web_rounds.own_questions(servers)
                for row in bad(f"{model}, each connection's own question", found):
                    self.report.add(row)

    def _add(self, model: str, connections: int, found: Found) -> None:
        told = f"{model}, {connections} connections"
        for name, samples in found.items():
            self.report.add(web_rounds.rate(f"{told}, {name}", samples))
        judged = model == "sleeping" and connections == JUDGED
        for row in compared(told, found, judged):
            self.report.add(row)
        for row in bad(told, found):
            self.report.add(row)
        common = {"model": model, "workers": 1, "connections": connections}
        self.report.points += web_rounds.points(found, **common)


def compared(told: str, found: Found, judged: bool) -> list[Row]:
    """zstreamer's doors against the peers.

    judged: whether the bounds hold here.
    """
    known = {**found, BEST: found[best(found)]}
    return [
        web_rounds.rate(
            f"{told}, {one}, against {other}",
            known[one],
            known[other],
            bound if judged else None,
        )
        for (one, other), bound in BOUNDS.items()
    ]


def against_mosec(told: str, found: Found, bound: tuple[str, float] | None) -> list[Row]:
    """A row for each wait, and the gateway against the best of them."""
    best = best_wait(found)
    rows = [web_rounds.rate(f"{told}, {name}", found[name]) for name in found if name != GATEWAY]
    title = f"{told}, {GATEWAY}, against {best}"
    return [*rows, web_rounds.rate(title, found[GATEWAY], found[best], bound)]


def best_wait(found: Found) -> str:
    """The fastest of mosec's waits."""
    waits = [f"{MOSEC}, {wait} ms" for wait in MOSEC_WAITS]
    return max(waits, key=lambda name: web_rounds.median(found[name], "rate"))


def bad(told: str, found: Found) -> list[Row]:
    """Wrong, late and missing answers: zstreamer's must be none, its peers' are told."""
    ours = {name: samples for name, samples in found.items() if name in OURS}
    peers = {name: samples for name, samples in found.items() if name not in OURS}
    theirs = web_rounds.bad(f"{told}, peers", peers)
    return [web_rounds.bad(f"{told}, zstreamer", ours), replace(theirs, bound=None)]


def best(found: Found) -> str:
    """The fastest of service-streamer's modes."""
    modes = [name for name in web_others.STREAMERS if name in found]
    return max(modes, key=lambda name: web_rounds.median(found[name], "rate"))
