"""Versions in virtual time: shares hold under load, and a shadow changes nothing for callers."""

import pytest

from tests.simulation.cluster import (
    SHADOW,
    History,
    SimBroker,
    SimClient,
    SimWorker,
    agent_config,
    broker_config,
)
from tests.simulation.world import World
from zstreamer.broker.routes import Route

PLACE = "tcp://b0:1"
CALLS = 1000


class Run:
    """One broker, two versions, a shadow's worker, and calls that come evenly."""

    def __init__(self, route):
        world = World(1)
        brokers = {PLACE: SimBroker(world, "b0", broker_config(), {"m": route})}
        self.history = History()
        copies = History()
        for number, version in enumerate(("1", "2", SHADOW)):
            config = agent_config(brokers, model="m", version=version, batch_size=16)
            history = copies if version == SHADOW else self.history
            SimWorker(world, f"worker{number}", brokers, config, history, 0.01, 0.001)
        self.copied = copies.begun
        client = SimClient(world, "client", brokers)
        calls = []
        for number in range(CALLS):
            payloads = [b"ok%d" % number]
            at = 1.0 + 0.004 * number
            world.at(at, lambda some=payloads: calls.append(client.submit(some, 20.0)))
        world.run(1.0 + 0.004 * CALLS + 5.0)
        self.outcomes = [call.outcomes for call in calls]
        self.mean = sum(client.completed[id(call)] - call.submitted for call in calls) / CALLS


@pytest.fixture(scope="module")
def plain():
    return Run(Route(weights={"1": 90, "2": 10}))


def test_a_canary_gets_its_share_under_load(plain):
    canary = sum(versions == {"2"} for versions in plain.history.versions.values())
    assert canary == pytest.approx(CALLS / 10, abs=1)
    assert plain.outcomes == [[b"=ok%d" % number] for number in range(CALLS)]
    assert not plain.copied


def test_a_shadow_changes_no_answer_and_no_latency_by_more_than_three_percent(plain):
    shadowed = Run(Route(weights={"1": 90, "2": 10}, shadow=SHADOW))
    assert len(shadowed.copied) == CALLS
    assert shadowed.outcomes == plain.outcomes
    assert shadowed.mean == pytest.approx(plain.mean, rel=0.03)
