"""The rows of the table by name: what is done, and how often in full and in short."""

from collections.abc import Callable
from typing import NamedTuple

from tests.chaos import brokers, clients, deaths, flaws, network, overload, soak


class Options(NamedTuple):
    """What holds for every row.

    gevent: whether callers are patched by gevent.
    quick: whether this is a short version.
    seconds: how long the soak lasts; None for its own length.
    """

    gevent: bool = False
    quick: bool = False
    seconds: float | None = None


class Row(NamedTuple):
    """One row; ``run`` takes the number of faults and the options, and returns an `Outcome`."""

    run: Callable
    full: int
    quick: int


ROWS = {
    "child-kill": Row(deaths.child_kill, 1000, 6),
    "agent-kill": Row(deaths.agent_kill, 200, 3),
    "agent-freeze": Row(deaths.agent_freeze, 50, 1),
    "link-freeze": Row(network.link_freeze, 50, 1),
    "client-cut": Row(network.client_cut, 200, 10),
    "broker-kill": Row(brokers.broker_kill, 50, 2),
    "broker-of-two": Row(brokers.broker_of_two, 50, 2),
    "rolling": Row(deaths.rolling, 30, 3),
    "worker-term": Row(deaths.worker_term, 50, 2),
    "slow-reader": Row(clients.slow_reader, 20, 2),
    "client-vanish": Row(clients.client_vanish, 20, 1),
    "overload": Row(overload.overload, 1, 1),
    "bad-items": Row(flaws.bad_items, 60, 1),
    "soak": Row(soak.soak, 1, 1),
}


def run(name, options, times=None):
    """Run one row; returns its outcome."""
    row = ROWS[name]
    return row.run(times or (row.quick if options.quick else row.full), options)
