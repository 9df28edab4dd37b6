"""What one tenant notices of another one's load, and what telling tenants apart costs the broker.

On real processes a small tenant keeps some items open, and beside it a crowd as many, or a hundred
times as many, in turns. The model sleeps, so that the workers are what is scarce, not the CPU.

The core alone, in this process, gets the same messages of clients that are of no tenant, and of
clients that each have a tenant of their own with all limits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.bench.callers import Spec
from tests.bench.load import Load, Times
from tests.bench.report import LESS, MORE, Report, Row
from tests.helpers.cluster import Cluster
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.routes import Route
from zstreamer.broker.sessions import Outgoing, Side
from zstreamer.broker.tenants import Terms
from zstreamer.config import BrokerConfig
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Answer, Role, Run, State, Work, WorkerState
from zstreamer.wire.protocol import Report as Outcomes

ROUNDS = 5

OPEN = 64
"""Items that the small tenant keeps open: more than the worker holds at once."""

CROWD = 100
"""Times that, of a crowd."""

BATCH = 16
SLEEP = {"beta": 0.008, "alpha": 0.000125}
"""Full batches are 1,600 items/s."""

PATIENCE = 300.0
WARM_UP = 1.0

WITHIN = 1.1
"""What a crowd may make of another tenant's latency, against a tenant with the same load."""

SHARE = 0.95
"""Of half of the throughput, what either must get."""

COST = 1.1
"""What tenants with limits may cost the core."""

CORE_ROUNDS = 21
CLIENTS, BUNDLE, TURNS = 16, 16, 60
PAYLOAD = bytes(64)


def run(seconds: float) -> Report:
    """Measure each side for so many seconds in all."""
    report = Report("tenants")
    beside(report, seconds)
    core(report)
    return report


# Beside a crowd


def beside(report: Report, seconds: float) -> None:
    """Compare a tenant beside a crowd with one beside a tenant of its own load."""
    with Cluster() as cluster, ThreadPoolExecutor() as pool:
        cluster.worker(
            "tests.bench.sleeper:Sleeper", model="sleeper", batch_size=BATCH, init_kwargs=SLEEP
        )
        with (
            Load(cluster.address, "sleeper", "small") as small,
            Load(cluster.address, "sleeper", "crowd") as others,
        ):
            window = seconds / ROUNDS

            def round_of(crowd: int) -> tuple[Times, float]:
                beside = Spec(
                    callers=crowd * OPEN, warm_up=WARM_UP, seconds=window, timeout=PATIENCE
                )
                theirs = pool.submit(others.measure, beside)
                mine = small.measure(
                    Spec(callers=OPEN, warm_up=WARM_UP, seconds=window, timeout=PATIENCE)
                )
                share = mine.rate / (mine.rate + theirs.result().rate)
                return Times.of(mine.latencies), share

            rounds = [(round_of(CROWD), round_of(1)) for _ in range(ROUNDS)]
    crowded, equal = zip(*rounds, strict=True)
    name = f"of a tenant beside one of {CROWD} times its load, against one of its own load"
    for words, value in (("median", "median"), ("p99", "most")):
        ours, theirs = ([getattr(each, value) for each, _ in side] for side in (crowded, equal))
        bound = (LESS, WITHIN) if value == "median" else None
        report.add(Row(f"latency, {words}, {name}", ours, "ms", theirs, bound))
    shares = [2 * min(share, 1 - share) for _, share in crowded]
    words = f"share of the throughput beside {CROWD} times its load, over a half; the lesser one"
    report.add(Row(words, shares, "", bound=(MORE, SHARE)))


# The core alone


def core(report: Report) -> None:
    """Compare what an item costs the core, with tenants and without."""
    with_limits = Terms(2.0, 1e9, 1e12, 1_000_000, 0.9, 100)
    ways = Core([f"tenant {n}" for n in range(CLIENTS)], with_limits), Core([""] * CLIENTS)
    rounds = []
    for number in range(CORE_ROUNDS):
        found = [0.0, 0.0]
        for side in (0, 1)[:: 1 if number % 2 else -1]:
            found[side] = ways[side].round()
        rounds.append(found)
    ours, theirs = map(list, zip(*rounds, strict=True))
    name = f"the core's CPU, bundles of {BUNDLE}: {CLIENTS} tenants with limits, against none"
    report.add(Row(name, ours, "µs/item", theirs, (LESS, COST)))


class Core:
    """A broker's core, driven without sockets.

    Args:
        tenants: one for each client; empty for none.
        terms: of each.
        bundle: items a message.
        versions: that workers announce, in turn; empty for none.
        route: of the model.

    Attributes:
        core: the broker's.
        items: of a round.
    """

    def __init__(
        self,
        tenants: list[str],
        terms: Terms | None = None,
        bundle: int = BUNDLE,
        versions: Sequence[str] = ("",),
        route: Route | None = None,
    ) -> None:
        self._now = 100.0
        self._bundle = bundle
        self.core = BrokerCore(BrokerConfig(), 1, self._now)
        if terms is not None:
            self.core.sessions.tenants.agree(dict.fromkeys(tenants, terms), self._now)
        self._clients = [b"c%d" % n for n in range(len(tenants))]
        self._next = dict.fromkeys(self._clients, 1)
        self._read = dict.fromkeys(self._clients, 0)
        self._spent = 0
        self.items = TURNS * bundle * len(tenants)
        for number, (session, tenant) in enumerate(zip(self._clients, tenants, strict=True)):
            info: dict[str, object] = {"open": [], **({"tenant": tenant} if tenant else {})}
            hello = protocol.hello(protocol.Hello(Role.CLIENT, 1000 + number, info))
            self._tell(Side.CLIENT, session, hello)
        for number in range(CLIENTS):
            info = {"model": "m", "batch_size": 64, "pool": 0}
            if version := versions[number % len(versions)]:
                info["version"] = version
            hello = protocol.hello(protocol.Hello(Role.WORKER, 5000 + number, info))
            self._tell(Side.WORKER, b"w%d" % number, hello)
            warm = protocol.plain(State(WorkerState.WARM, ""))
            self._tell(Side.WORKER, b"w%d" % number, warm)
        if route is not None:
            self.core.scheduler.versions.agree({"m": route})
        self._now += 1.0
        self.core.poll(self._now)

    def round(self) -> float:
        """Return the µs of CPU time that an item takes."""
        self._spent = 0
        for _ in range(TURNS):
            self._now += 0.0005
            for client in self._clients:
                self._submit(client)
        return self._spent / 1e3 / self.items

    def _submit(self, client: bytes) -> None:
        bundle = self._bundle
        ids = list(range(self._next[client], self._next[client] + bundle))
        self._next[client] += bundle
        items = Run("m", 0, 0, 0, ids, [20_000] * bundle, [PAYLOAD] * bundle)
        sent = self._tell(Side.CLIENT, client, protocol.submit(self._read[client], [items], []))
        while sent:
            out, sent = sent, []
            for side, session, frames in out:
                message = protocol.decode([bytes(each) for each in frames])
                if isinstance(message, Answer):
                    self._read[session] += 1
                elif isinstance(message, Work):
                    done = message.tickets
                    outcomes = Outcomes(done, done, [PAYLOAD] * len(done), 0, 1000, 20)
                    sent += self._tell(side, session, protocol.report(outcomes, []))

    def _tell(self, side: Side, session: bytes, frames: protocol.Frames) -> list[Outgoing]:
        frames = [bytes(each) for each in frames]
        begun = time.thread_time_ns()
        handle = self.core.on_worker if side is Side.WORKER else self.core.on_client
        handle(self._now, session, frames)
        found: list[Outgoing] = []
        while sends := self.core.poll(self._now):
            found += sends
        self._spent += time.thread_time_ns() - begun
        return found
