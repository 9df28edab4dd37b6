"""What the controller starts and stops: pure, told what there is and what is wanted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Actor(NamedTuple):
    """One worker actor as the controller knows it.

    Attributes:
        number: it is called after it.
        node: where it runs; empty where that is not known, as while Ray places it.
        warm: its model answers.
        draining: it was told to finish.
    """

    number: int
    node: str = ""
    warm: bool = False
    draining: bool = False


class Plan(NamedTuple):
    """Which workers to start and which to drain, by number."""

    start: list[int]
    drain: list[int]


def plan(actors: Sequence[Actor], wanted: int, leaving: Collection[str]) -> Plan:
    """Return what brings the workers to what is wanted.

    A worker on a node that is being drained is replaced first: it finishes once as many others are
    warm as are wanted. Of too many those go first that are not warm yet, then the newest.

    Args:
        actors: those that run or are being placed.
        wanted: how many workers there should be.
        leaving: the nodes that are being drained.
    """
    here = [each for each in actors if not each.draining]
    staying = [each for each in here if each.node not in leaving or not each.node]
    used = {each.number for each in actors}
    free = (number for number in range(len(used) + wanted) if number not in used)
    start = [next(free) for _ in range(wanted - len(staying))]
    surplus = sorted(staying, key=lambda each: (each.warm, -each.number))
    drain = [each.number for each in surplus[: max(0, len(staying) - wanted)]]
    moved = [each.number for each in here if each not in staying]
    warm = sum(each.warm for each in staying)
    replaced = len(moved) if warm >= wanted else 0
    return Plan(start, drain + moved[:replaced])
