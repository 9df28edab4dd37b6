"""What an operator may ask of a running broker: drain and resume, by name.

    drain NAME     its workers finish what they hold and get nothing new; they stay connected
    resume NAME    they get items again
    route NAME     show or change which version of a model gets which items

NAME is a worker's ``host:pid``, a host, ``model NAME``, ``model NAME@VERSION``, or ``broker``,
which then refuses new items and goes on with those it has. For a route it is a model's name, or
none to see all routes; what is to change is a table as in the file of routes, in which null takes
away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zstreamer.broker import holds
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.routes import RouteError

ACTIONS = ("drain", "resume", "route")
BROKER = "broker"


class Outcome(NamedTuple):
    """What came of it: an HTTP status, and the words and figures of the answer."""

    status: int
    body: dict[str, object]


def act(core: BrokerCore, action: object, name: object, change: object = None) -> Outcome:
    """Do it; a wrong action or name changes nothing.

    Args:
        core: the broker.
        action: one of `ACTIONS`.
        name: see above.
        change: of a route; None to see it.
    """
    if action not in ACTIONS or not isinstance(name, str):
        return Outcome(400, {"error": "give an action, drain, resume or route, and a name"})
    if action == "route":
        return _route(core, name, change)
    drain = action == "drain"
    if name == BROKER:
        if drain:
            core.drain()
        else:
            core.resume()
        return Outcome(200, {"name": name, "draining": core.draining})
    workers = holds.named(core.workers.values(), name)
    if not workers and (drain or name not in core.sessions.holds.names):
        return Outcome(404, {"error": f"no worker here is called {name:.200}: {_known(core)}"})
    if wrong := core.sessions.holds.add(name) if drain else core.sessions.holds.remove(name):
        return Outcome(429, {"error": wrong})
    core.look_at_holds()
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


def _known(core: BrokerCore) -> str:
    found = dict.fromkeys(holds.names(each)[0] for each in core.workers.values())
    few = ", ".join(list(found)[:20]) or "none"
    return f"its workers are {few}" + (f" and {len(found) - 20} more" if len(found) > 20 else "")
