"""Suspects that are being prepared: their group may be planned when the last of them is ready."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zstreamer.worker.jobs import Job


class Suspects:
    """Groups that are to run as batches of their own."""

    def __init__(self) -> None:
        self._groups: list[tuple[set[int], list[Job]]] = []

    def add(self, jobs: Sequence[Job]) -> None:
        """A group has come."""
        self._groups.append(({job.id for job in jobs}, list(jobs)))

    def ready(self, ids: Iterable[int]) -> list[list[Job]]:
        """These are prepared, or are no longer wanted; return the groups that are now whole."""
        if not self._groups:
            return []
        ids = set(ids)
        for waiting, _ in self._groups:
            waiting -= ids
        whole = [jobs for waiting, jobs in self._groups if not waiting]
        self._groups = [group for group in self._groups if group[0]]
        return whole

    def clear(self) -> None:
        """The process that prepared them has ended."""
        self._groups.clear()
