"""Names of items in logs at level debug, the same in client, broker and worker: ``CLIENT-ITEM``.

zstreamer… --log-level debug 2>&1 | grep 5f3a09c2d1e4b687-17
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

SHOWN = 64
"""Tags of one line."""


def tag(client: int, item: int) -> str:
    """Return the tag of one item, by its client's id and its number there."""
    return f"{client:016x}-{item}"


def line(tags: Iterable[str]) -> str:
    """Return tags as one line shows them: those that are too many are left out."""
    tags = iter(tags)
    shown = list(islice(tags, SHOWN))
    more = sum(1 for _ in tags)
    return ",".join(shown) + (f",+{more}" if more else "")
