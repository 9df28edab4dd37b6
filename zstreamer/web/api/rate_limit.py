"""The headers that tell a caller which rate it has used up, as the IETF's draft has them
(draft-ietf-httpapi-ratelimit-headers-10):

    RateLimit-Policy: "items";q=500;w=1;qu="items"      500 items in each second
    RateLimit: "items";r=0;t=3                          none is left; some are in 3 seconds
    Retry-After: 3

They are on 429 alone. What is left of a rate only the broker knows, which many processes of many
gateways use at once: in other responses any figure would be a guess.
"""

from __future__ import annotations

import math

from zstreamer.errors import Rate
from zstreamer.web.api.steps import Header

_WINDOWS = (1, 10, 60, 3600)
_UNITS = {"items": "items", "bytes": "content-bytes"}


def headers(rate: Rate, seconds: int) -> list[Header]:
    """Return both headers.

    Args:
        rate: what may be sent on average.
        seconds: until something may be sent again.
    """
    quota, window = _policy(rate.per_second)
    unit = _UNITS[rate.unit]
    return [
        ("ratelimit-policy", f'"{rate.unit}";q={quota};w={window};qu="{unit}"'),
        ("ratelimit", f'"{rate.unit}";r=0;t={seconds}'),
    ]


def _policy(per_second: float) -> tuple[int, int]:
    """Return a rate as a whole number in a whole number of seconds, within a hundredth."""
    for window in _WINDOWS:
        quota = per_second * window
        if quota >= 100 or (quota >= 1 and quota.is_integer()):
            return int(quota), window
    return 1, math.ceil(1 / per_second)
