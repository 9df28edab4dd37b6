"""What an operator may ask of a running broker: drain and resume, by name.

    drain NAME     its workers finish what they hold and get nothing new; they stay connected
    resume NAME    they get items again

NAME is a worker's ``host:pid``, a host, ``model NAME``, or ``broker``, which then refuses new items
and goes on with those it has.
"""

from __future__ import annotations

from typing import NamedTuple

from zstreamer.broker import holds
from zstreamer.broker.core import BrokerCore

ACTIONS = ("drain", "resume")
BROKER = "broker"


class Outcome(NamedTuple):
    """What came of it: an HTTP status, and the words and figures of the answer."""

    status: int
    body: dict[str, object]


def act(core: BrokerCore, action: object, name: object) -> Outcome:
    """Do it; a wrong action or name changes nothing.

    Args:
        core: the broker.
        action: one of `ACTIONS`.
        name: see above.
    """
    if action not in ACTIONS or not isinstance(name, str):
        return Outcome(400, {"error": "give an action, drain or resume, and a name"})
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


def _known(core: BrokerCore) -> str:
    found = dict.fromkeys(holds.names(each)[0] for each in core.workers.values())
    few = ", ".join(list(found)[:20]) or "none"
    return f"its workers are {few}" + (f" and {len(found) - 20} more" if len(found) > 20 else "")
