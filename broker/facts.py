"""What a worker says of itself when it is asked, as far as the broker keeps it: typed and bounded.

The broker asks with STATUS while somebody looks, and passes the answers on in its snapshot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

MAX_WORDS = 200
"""Characters of one text."""

MAX_COUNTS = 24
"""Entries of one table of counts, and the characters of their names."""

MAX_NUMBER = 2**53

SIZE = 1024
"""About as many bytes as all of it takes in the snapshot."""


EVERY = 0.5
"""Seconds between two questions."""


class Survey:
    """When the workers are asked, and what the broker's own process says of itself.

    Attributes:
        measure: returns that; the driver sets it, since a core reads no system.
        own: its last answer.
    """

    def __init__(self) -> None:
        self.measure: Callable[[], dict[str, object]] = dict
        self.own: dict[str, object] = {}
        self._next = 0.0

    def due(self, now: float) -> bool:
        """Whether the workers are to be asked now; looks at the own process, too."""
        if now < self._next:
            return False
        self._next = now + EVERY
        self.own = self.measure()
        return True


def kept(info: Mapping[str, object]) -> dict[str, object]:
    """Return what is kept of a worker's answer; what is not as it should be is left out."""
    return {key: info[key] for key, good in _KEPT.items() if key in info and good(info[key])}


def _number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) <= MAX_NUMBER  # type: ignore[arg-type]  # just looked


def _word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_WORDS


def _counts(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MAX_COUNTS
        and all(type(key) is str and len(key) <= MAX_COUNTS for key in value)
        and all(map(_number, value.values()))
    )


_KEPT: dict[str, Callable[[object], bool]] = {
    "batches": _number,
    "items": _number,
    "closed": _counts,
    "sizes": _counts,
    "cost": _number,
    "padded": _number,
    "busy": _number,
    "failed": _number,
    "deaths": _number,
    "death": _word,
    "time": _number,
    "cpus": _number,
    "memory": _number,
    "memory_limit": _number,
    "descriptors": _number,
    "descriptor_limit": _number,
    "model_cpu": _number,
    "model_threads": _number,
}
