"""What an item costs in the broker, with bundles held, left to themselves, and against a proxy.

Below every held bundle lies a floor: what a relay in bare pyzmq spends on the same messages, which
are two received and two sent for each bundle (`tests.bench.forward`).

The broker is a real process on loopback TCP; its peers are raw sockets that speak the protocol, see
`tests.bench.pairs` (bundles held) and `tests.bench.through` (bundles as they come). The cost is the
CPU time of all its threads, libzmq's among them, divided by the items, so it does not matter that
the load has to share the machine with the broker.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench import usage
from tests.bench.pairs import Pairs, Sample, Shape, in_peers
from tests.bench.peers import Way
from tests.bench.report import LESS, MORE, Report, Row
from tests.bench.through import Loop, Through

ROUNDS = 5

HELD = 0.9
"""The least mean bundle, as a share of k, of a load that counts as held."""

BUNDLED, SINGLE = (LESS, 4.0), (LESS, 30.0)
"""CPU µs an item at 64 B: in bundles of 16 and more, and one a message."""

GROWTH = (LESS, 1.2)
"""How much more an item may cost with 64 workers and 1,000 clients."""

FASTER, AS_FAST = (MORE, 3.0), (MORE, 0.8)
"""Against zmq.proxy: items a second of 64 B, and bytes a second of 1 MB."""

MB = 10**6
ITEM = 80
"""Bytes that an item of 64 B takes in a bundle, about."""

FEW, MANY = {"workers": 16, "clients": 16}, {"workers": 64, "clients": 1000}

SIZES = [
    *(Shape(bundle, **FEW) for bundle in (1, 4, 16, 64)),
    *(Shape(bundle, **MANY) for bundle in (1, 64)),
    *(Shape(bundle, size=4096, **FEW) for bundle in (1, 16, 64)),
    Shape(16, size=4096, **MANY),
    Shape(1, size=MB, workers=4, clients=4, flight=4),
    Shape(1, size=MB, workers=16, clients=200, flight=4),
]
"""Bundles of 1 MB cannot be: one closes after 1 MiB of payloads."""

FLOORS = (1, 16, 64)
"""Bundles of which the floor is measured."""

PEERS = [Shape(16, workers, clients) for workers in (1, 16, 64) for clients in (1, 200, 1000)]

LONE = Shape(16, workers=1, clients=1, flight=1)
GROWN = [(LONE, Shape(16, flight=1, **MANY)), (Shape(16, **FEW), Shape(16, **MANY))]
"""A lone pair of peers has bundles of exactly k with one pair in flight, so with as many others are
compared with it. What that costs is mostly being woken for each message; a broker that always has
something to read shows better what the peers cost, and needs 16 of them to have bundles of k."""

UNTIMED = {"heartbeat": 60.0, "heartbeat_timeout": 240.0}
"""Heartbeats cost by time and not by item, so they would weigh most where a load is slowest: they
have a row of their own, and are left out where the cost of an item is compared."""

LOOPS = [Loop(), Loop(clients=200, open=1), Loop(workers=64, clients=1000, open=1, batch=16)]


def run(seconds: float) -> Report:
    """Measure each row for so many seconds in all."""
    _allow_many_sockets()
    return Bench(seconds).run()


@dataclass
class Bench:
    """The benchmark under way.

    Args:
        seconds: for each row, besides what its processes take to start.
        rounds: parts of that; each row is the median of them.
    """

    seconds: float
    rounds: int = ROUNDS
    report: Report = field(default_factory=lambda: Report("broker"))
    calibrations: list[float] = field(default_factory=list)

    def run(self) -> Report:
        """Measure all rows."""
        for shape in (*SIZES, *PEERS):
            self.held(shape)
        for bundle in FLOORS:
            self.floor(bundle)
        for few, many in GROWN:
            self.grown(few, many)
        self.idle(Shape(16, **MANY))
        for loop in LOOPS:
            self.free(loop)
        self.against_proxy(Loop())
        self.against_proxy(Loop(clients=4, open=4, batch=4, size=MB))
        self.report.add(
            Row("calibration: CPU of 1,000 turns of a Python loop", self.calibrations, "µs")
        )
        return self.report

    def held(self, shape: Shape) -> None:
        """Tell what an item costs in bundles of k."""
        with Pairs(shape) as pairs:
            samples = [self._round(pairs) for _ in range(self.rounds)]
        self._add(f"held: {shape}", samples, bound=_bound(shape), held=shape)

    def floor(self, bundle: int) -> None:
        """Tell what a relay spends on messages as large as bundles of k, with 16 in flight."""
        loop = Loop(workers=16, clients=16, open=1, size=bundle * ITEM)
        with Through("relay", loop) as relay:
            samples = [self._round(relay) for _ in range(self.rounds)]
        values = [sample.cpu / bundle for sample in samples]
        self.report.add(Row(f"floor: a relay in pyzmq, messages of k={bundle}", values, "µs/item"))

    def grown(self, few: Shape, many: Shape) -> None:
        """Compare the cost of an item between few peers and many, round by round."""
        with Pairs(few, **UNTIMED) as some, Pairs(many, **UNTIMED) as all_:
            rounds = [(self._round(all_), self._round(some)) for _ in range(self.rounds)]
        samples, references = map(list, zip(*rounds, strict=True))
        name = f"growth, heartbeats apart: {many}, against {in_peers(few.workers, few.clients)}"
        self._add(name, samples, references, GROWTH, many)
        if seen := _broken(few, references):
            self.report.notes.append(f"{name}: the reference's hold was broken, bundles {seen}")

    def idle(self, shape: Shape) -> None:
        """Tell what so many peers cost in heartbeats alone."""
        with Pairs(shape) as pairs:
            shares = [pairs.idle(self.seconds / self.rounds) for _ in range(self.rounds)]
        name = f"idle: {in_peers(shape.workers, shape.clients)}"
        self.report.add(Row(name, [1000 * share for share in shares], "ms/s"))

    def free(self, loop: Loop) -> None:
        """Tell what an item costs in the bundles that a closed loop makes of itself."""
        with Through("broker", loop) as broker:
            samples = [self._round(broker) for _ in range(self.rounds)]
        self._add(f"free-running: {loop}", samples)

    def against_proxy(self, loop: Loop) -> None:
        """Compare the same loop through the broker and through zmq.proxy, round by round."""
        with Through("broker", loop) as broker, Through("proxy", loop) as proxy:
            rounds = [(self._round(broker), self._round(proxy)) for _ in range(self.rounds)]
            busy = {"the broker": broker.busy, "zmq.proxy": proxy.busy}
        ours, theirs = map(list, zip(*rounds, strict=True))
        told = f"bundles {_seen(ours)}"
        large = loop.size >= MB
        unit, factor = ("MB/s", loop.size / MB) if large else ("items/s", 1.0)
        rates = [[sample.rate * factor for sample in side] for side in (ours, theirs)]
        bound = AS_FAST if large else FASTER
        self.report.add(Row(f"against zmq.proxy: {loop}", rates[0], unit, rates[1], bound, told))
        self._add(f"the same, CPU of broker and proxy: {loop}", ours, theirs)
        for middle, shares in busy.items():
            words = ", ".join(f"{who} {share:.2f}" for who, share in shares.items())
            self.report.notes.append(f"cores busy through {middle}, {loop}: {words}")

    def _round(self, load: Pairs | Through) -> Sample:
        self.calibrations.append(usage.calibration())
        return load.round(self.seconds / self.rounds)

    def _add(
        self,
        name: str,
        samples: Sequence[Sample],
        references: Sequence[Sample] = (),
        bound: tuple[str, float] | None = None,
        held: Shape | None = None,
    ) -> None:
        """Add a row of CPU times; where a hold was meant, say whether it was broken."""
        told = f"bundles {_seen(samples)}"
        if held and _broken(held, samples):
            told += " (hold broken)"
        values, others = ([sample.cpu for sample in side] for side in (samples, references))
        self.report.add(Row(name, values, "µs/item", others, bound, told))


def _allow_many_sockets() -> None:
    """Let this process and the broker, which inherits it, open as many as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _bound(shape: Shape) -> tuple[str, float] | None:
    if shape.size != 64 or 1 < shape.bundle < 16:
        return None
    return SINGLE if shape.bundle == 1 else BUNDLED


def _seen(samples: Sequence[Sample]) -> str:
    """Return the mean bundles of all rounds: SUBMIT/WORK/REPORT/ANSWER."""
    means = (sum(s.bundles[way] for s in samples) / len(samples) for way in Way)
    return "/".join(f"{mean:.3g}" for mean in means)


def _broken(shape: Shape, samples: Sequence[Sample]) -> str:
    """Return the mean bundles where a round had too small ones, else nothing."""
    least = min(min(sample.bundles) for sample in samples)
    return _seen(samples) if least < HELD * shape.bundle else ""
