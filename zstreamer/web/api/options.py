"""What a request says besides its items: how long it may take, what goes first, and how to answer.

X-Request-Timeout: 2.5      seconds for the call, cut to `Limits.max_timeout`
X-Priority: 10              higher goes first; 0 where it is not given
Accept: application/msgpack     weights (q=…) are not looked at
"""

from __future__ import annotations

import math

from zstreamer.errors import BadRequest
from zstreamer.web.api.bodies import JSON, MSGPACK
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.steps import Request


def of(request: Request, limits: Limits) -> tuple[float, int]:
    """Return the seconds and the priority of a call; raises BadRequest."""
    seconds = request.header("x-request-timeout")
    priority = request.header("x-priority")
    return (
        limits.timeout if seconds is None else _timeout(seconds, limits),
        0 if priority is None else _priority(priority, limits),
    )


def _timeout(text: str, limits: Limits) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadRequest(
            f"X-Request-Timeout must be a positive number of seconds, not {text!r:.50}"
        )
    return min(seconds, limits.max_timeout)


def _priority(text: str, limits: Limits) -> int:
    most = limits.max_priority
    try:
        priority = int(text[:20])
    except ValueError:
        priority = most + 1
    if not -most <= priority <= most:
        raise BadRequest(
            f"X-Priority must be a whole number between {-most} and {most}, not {text!r:.50}"
        )
    return priority


def wants_msgpack(request: Request, default: bool) -> bool:
    """Whether the answer is to be msgpack and not JSON.

    Args:
        request: whose Accept says so.
        default: whether it is where Accept leaves the choice: as the request itself came.

    Raises:
        Refused: Accept allows neither.
    """
    accept = request.header("accept")
    if accept is None or accept == "*/*":
        return default
    named = {each.partition(";")[0].strip() for each in accept.lower().split(",")}
    if (MSGPACK in named) is not (JSON in named):
        return MSGPACK in named
    if named.isdisjoint((JSON, "application/*", "*/*")):
        raise Refused(406, f"answers come as {JSON} or {MSGPACK}; accept is {accept!r:.100}")
    return default
