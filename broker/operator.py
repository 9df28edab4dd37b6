"""What an operator may ask of a running broker: drain, refuse and resume, by name.

    drain NAME     its workers finish what they hold and get nothing new; they stay connected
    refuse NAME    its clients and workers are told why, their sessions end, and they may not return
    resume NAME    ends both
    route NAME     show or change which version of a model gets which items
    load NAME      the hosts whose repositories have the model start its workers
    unload NAME    they drain its workers, and stop them

NAME is a ``host:pid``, a host, ``model NAME``, ``model NAME@VERSION``, or ``broker``, which can be
drained: it then refuses new items and goes on with those it has. For a route it is a model's name,
or none to see all routes; what is to change is a table as in the file of routes, in which null
takes away. To load and unload it is a model's name, or MODEL@VERSION.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zstreamer.broker import holds, hosts
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.hosts import Pending
from zstreamer.broker.routes import RouteError
from zstreamer.broker.sessions import Side
from zstreamer.errors import Unauthorized

ACTIONS = ("drain", "refuse", "resume", "route", *hosts.ACTIONS)
BROKER = "broker"


class Outcome(NamedTuple):
    """What came of it: an HTTP status, and the words and figures of the answer."""

    status: int
    body: dict[str, object]


def act(
    core: BrokerCore, now: float, action: object, name: object, change: object = None
) -> Outcome | Pending:
    """Do it; a wrong action or name changes nothing. What hosts do takes a moment.

    Args:
        core: the broker.
        now: monotonic seconds.
        action: one of `ACTIONS`.
        name: see above.
        change: of a route; None to see it.
    """
    if action not in ACTIONS or not isinstance(name, str):
        return Outcome(400, {"error": f"give an action ({', '.join(ACTIONS)}) and a name"})
    if action == "route":
        return _route(core, name, change)
    if action in hosts.ACTIONS:
        found = core.sessions.hosts.order(now, str(action), name)
        return found if isinstance(found, Pending) else Outcome(found[0], {"error": found[1]})
    if name == BROKER:
        return _broker(core, action)
    if action == "drain":
        return _drain(core, name)
    return _refuse(core, now, name) if action == "refuse" else _resume(core, name)


def _drain(core: BrokerCore, name: str) -> Outcome:
    if not _workers(core, name):
        return _nobody(core, name, workers_only=True)
    if wrong := core.sessions.holds.add(name):
        return Outcome(429, {"error": wrong})
    return _drained(core, name)


def _refuse(core: BrokerCore, now: float, name: str) -> Outcome:
    peers = _workers(core, name) + _clients(core, name) + _hosts(core, name)
    if not peers:
        return _nobody(core, name, workers_only=False)
    if wrong := core.sessions.banned.add(name):
        return Outcome(429, {"error": wrong})
    for side, session in peers:
        error = Unauthorized(f"an operator of the broker has refused {name!r}")
        core.sessions.shut_out(now, side, session, error)
    return Outcome(200, {"name": name, "refused": len(peers)})


def _broker(core: BrokerCore, action: object) -> Outcome:
    if action == "refuse":
        return Outcome(400, {"error": "a broker can be drained; refuse is for its peers"})
    if action == "drain":
        core.drain()
    else:
        core.resume()
    return Outcome(200, {"name": BROKER, "draining": core.draining})


def _resume(core: BrokerCore, name: str) -> Outcome:
    sessions = core.sessions
    if name not in {**sessions.holds.names, **sessions.banned.names} and not _workers(core, name):
        return _nobody(core, name, workers_only=False)
    sessions.banned.remove(name)
    sessions.holds.remove(name)
    return _drained(core, name)


def _drained(core: BrokerCore, name: str) -> Outcome:
    core.look_at_holds()
    workers = holds.named(core.workers.values(), name)
    drained = [holds.names(each)[0] for each in workers if each.drained]
    return Outcome(200, {"name": name, "workers": len(workers), "drained": drained})


def _route(core: BrokerCore, name: str, change: object) -> Outcome:
    versions = core.scheduler.versions
    if change is not None:
        if not isinstance(change, Mapping) or not name:
            return Outcome(400, {"error": "give a model's name, and a table with what changes"})
        try:
            versions.change(name, change)
        except RouteError as error:
            return Outcome(400, {"error": f"the route of {name:.100} stays as it was: {error}"})
        core.look_at_versions()
    return Outcome(200, {"name": name, "routes": versions.rows(name)})


def _workers(core: BrokerCore, name: str) -> list[tuple[Side, bytes]]:
    workers = core.workers.items()
    return [(Side.WORKER, session) for session, each in workers if name in holds.names(each)]


def _clients(core: BrokerCore, name: str) -> list[tuple[Side, bytes]]:
    clients = core.sessions.connected.items()
    return [(Side.CLIENT, session) for session, each in clients if name in holds.of_peer(each.info)]


def _hosts(core: BrokerCore, name: str) -> list[tuple[Side, bytes]]:
    known = core.sessions.hosts.known.items()
    return [(Side.WORKER, session) for session, each in known if name in holds.of_peer(each.info)]


def _nobody(core: BrokerCore, name: str, *, workers_only: bool) -> Outcome:
    workers = dict.fromkeys(holds.names(each)[0] for each in core.workers.values())
    who, known = "worker", f"its workers are {_few(workers)}"
    if not workers_only:
        clients = (holds.of_peer(each.info)[0] for each in core.sessions.connected.values())
        who, known = "peer", f"{known}; its clients are {_few(dict.fromkeys(clients))}"
    return Outcome(404, {"error": f"no {who} here is called {name:.200}: {known}"})


def _few(names: dict[str, None]) -> str:
    words = ", ".join(list(names)[:20]) or "none"
    return words + (f" and {len(names) - 20} more" if len(names) > 20 else "")
