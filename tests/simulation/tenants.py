"""What a tenant notices of another one's load: two tenants beside each other in virtual time.

Both send all the time, so that the workers are never idle: a small tenant a bounded load, and
a crowd the same load, or a hundred times as much from as many clients. A third tenant asks for a
single item now and then.
"""

from statistics import median
from typing import NamedTuple

from tests.simulation.cluster import (
    History,
    SimBroker,
    SimClient,
    SimWorker,
    agent_config,
    broker_config,
)
from tests.simulation.world import World
from zstreamer.broker.tenants import Terms

CROWD = 100
"""Times the small tenant's load."""

BATCH, BETA, ALPHA = 16, 0.004, 0.0005
"""Items of a batch, and seconds of its time T(n) = beta + alpha·n."""

WORKERS = 2

OPEN = 128
"""Calls of one item that a client of the small tenant or the crowd has open at once: more than the
workers hold at once, so that some always wait at the broker."""

RARE = 0.05
"""Mean seconds between two calls of the third tenant."""

WARM_UP = 1.0
SECONDS = 4.0
"""Virtual seconds that are not counted, and those that are."""

PATIENCE = 1000.0
"""Seconds that a call may take, so that nothing is refused."""


class Figures(NamedTuple):
    """What one run came to.

    Attributes:
        share: of the small tenant in what was answered to it and the crowd.
        latency: median seconds of its calls.
        rare: median seconds of the calls of the third tenant.
    """

    share: float
    latency: float
    rare: float


class Caller(SimClient):
    """A client that keeps so many calls open; each is of one item.

    Attributes:
        latencies: seconds of the calls that have ended.
    """

    def __init__(self, world, name, brokers, tenant, calls):
        super().__init__(world, name, brokers, tenant)
        self.latencies = []
        self._open = {}
        for _ in range(calls):
            self.call()

    def call(self):
        """Make one call more."""
        call = self.submit([b"ok"], PATIENCE)
        self.submitted.clear()  # nobody looks at them afterwards
        self._open[id(call)] = call, self.world.now

    def turn(self):
        wake = super().turn()
        for key in self.completed:
            call, begun = self._open.pop(key)
            assert not call.error, call.error
            self.latencies.append(self.world.now - begun)
            self.next()
        self.completed.clear()
        return wake

    def next(self):
        """A call has ended."""
        self.call()


class Rare(Caller):
    """A client that makes a call now and then, however long the one before takes."""

    def __init__(self, world, name, brokers, tenant):
        super().__init__(world, name, brokers, tenant, 0)
        self._again()

    def next(self):
        pass

    def _again(self):
        self.call()
        self.world.after(self.world.random.expovariate(1 / RARE), self._again)


def run(seed, crowd, weight=1.0, apart=True):
    """Return what the small tenant notices of a crowd of so many clients of its own size.

    Args:
        seed: of all that is random.
        crowd: how many clients it has.
        weight: of the small tenant, where the crowd has 1.
        apart: whether they are tenants; else all clients count to one.
    """
    world = World(seed)
    broker = SimBroker(world, "b0", broker_config(), {})
    broker.core.sessions.tenants.agree({"small": Terms(weight=weight)}, 0.0)
    brokers = {"tcp://b0:1": broker}
    config = agent_config(brokers, model="m", batch_size=BATCH, max_latency=0.0)
    workers = [
        SimWorker(world, f"worker{n}", brokers, config, History(), BETA, ALPHA)
        for n in range(WORKERS)
    ]
    small = Caller(world, "small", brokers, "small" if apart else "", OPEN)
    rare = Rare(world, "rare", brokers, "rare")
    others = [
        Caller(world, f"crowd{n}", brokers, "crowd" if apart else "", OPEN) for n in range(crowd)
    ]
    world.run(0.1)
    for peer in (*workers, small, rare, *others):
        for wire in peer.wires.values():
            wire.delay, wire.bandwidth = 0.0001, 1e9
    pass_time(world, WARM_UP)
    for each in (small, rare, *others):
        each.latencies.clear()
    pass_time(world, SECONDS)
    answered = sum(len(each.latencies) for each in others)
    mine = len(small.latencies)
    return Figures(mine / (mine + answered), median(small.latencies), median(rare.latencies))


def pass_time(world, seconds):
    """Run so many seconds, in steps of which each is checked for endless loops."""
    end = world.now + seconds
    while world.now < end:
        world.run(min(end, world.now + 0.1))


def report(seed):
    """Print a row for each weight and crowd."""
    print(f"{'weight':>6} {'crowd':>6} {'share':>8} {'latency':>10} {'rare':>10}")
    for weight in (1.0, 2.0):
        for crowd in (1, CROWD):
            found = run(seed, crowd, weight)
            latency, rare = 1000 * found.latency, 1000 * found.rare
            print(
                f"{weight:6g} {crowd:6} {100 * found.share:7.2f}% {latency:7.2f} ms {rare:7.2f} ms"
            )
    return 0
