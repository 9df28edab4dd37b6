"""What an agent keeps of an item; its payload went on to the model's process."""

from __future__ import annotations

from zstreamer.worker.link import WorkerLink


class Job:
    """One item at this worker, from WORK to REPORT.

    Attributes:
        link: the broker that waits for it, None once that connection is lost.
        begun: the child has claimed it.
        tag: what it is called in logs, where its broker says so.
    """

    __slots__ = ("arrived", "begun", "cost", "deadline", "id", "link", "tag", "ticket")

    def __init__(
        self, id: int, link: WorkerLink, ticket: int, deadline: float, arrived: float
    ) -> None:
        self.id = id
        self.link: WorkerLink | None = link
        self.ticket = ticket
        self.deadline = deadline
        self.arrived = arrived
        self.cost = 0.0
        self.tag = ""
        self.begun = False
