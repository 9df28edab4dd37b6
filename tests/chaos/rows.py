"""The rows of the table by name: what is done, and how often in full and in short."""

from collections.abc import Callable
from typing import NamedTuple

from tests.chaos import brokers, clients, deaths, flaws, network, overload, soak


class Options(NamedTuple):
    """What holds for every row.

    gevent: whether callers are patched by gevent.
    gunicorn: whether they call through the clients of gunicorn's gevent workers, over HTTP.
    quick: whether this is a short version.
    seconds: how long the soak lasts; None for its own length.
    """

    gevent: bool = False
    gunicorn: bool = False
    quick: bool = False
    seconds: float | None = None


class Row(NamedTuple):
    """One row.

    run: takes the number of faults and the options, and returns an `Outcome`.
    full, quick: how many faults, in full and in short.
    own_client: whether more is done with the client than to call, so that it cannot be gunicorn's.
    """

    run: Callable
    full: int
    quick: int
    own_client: bool = False


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
    "client-vanish": Row(clients.client_vanish, 20, 1, own_client=True),
    "overload": Row(overload.overload, 1, 1, own_client=True),
    "bad-items": Row(flaws.bad_items, 60, 1, own_client=True),
    "soak": Row(soak.soak, 1, 1, own_client=True),
}


THROUGH_GUNICORN = [name for name, row in ROWS.items() if not row.own_client]


def refusal(name, options):
    """Why a row cannot be run in this way; empty where it can."""
    if not options.gunicorn or name in THROUGH_GUNICORN:
        return ""
    return (
        f"{name} does more with its client than to call, so that it cannot be gunicorn's; "
        f"these can be run through gunicorn: {', '.join(THROUGH_GUNICORN)}"
    )


def run(name, options, times=None):
    """Run one row; returns its outcome. Raises ValueError for what is refused."""
    if words := refusal(name, options):
        raise ValueError(words)
    row = ROWS[name]
    return row.run(times or (row.quick if options.quick else row.full), options)
