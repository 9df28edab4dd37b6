"""One item as the broker knows it. The states are the broker's column in docs/protocol.md."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.clients import Client
    from broker.models import Model
    from broker.workers import Worker
    from zstreamer.protocol import Buffer


class ItemState(IntEnum):
    """Where an item is."""

    QUEUED = 1
    ASSIGNED = 2  # has a ticket and is on its way to a worker, or waits there
    BEGUN = 3  # the worker said that its model has begun it
    ENDED = 4  # answered, failed or given up; a worker may still hold a ticket for it


class Item:
    """One model input between its SUBMIT and its ANSWER.

    Attributes:
        id: the client's number for it; with the client's id it is the tag.
        deadline: monotonic seconds at which its budget ends.
        once: it must never be run twice.
        deaths: how often a model's process died while running it with no other item.
        losses: how often a worker that had begun it was lost from sight.
        suspect: it was in a batch whose process died, and runs apart until it is cleared.
    """

    __slots__ = (
        "client",
        "deadline",
        "deaths",
        "id",
        "lane",
        "losses",
        "model",
        "once",
        "payload",
        "priority",
        "size",
        "state",
        "suspect",
        "ticket",
        "worker",
    )

    def __init__(
        self,
        client: Client,
        id: int,
        model: Model,
        payload: Buffer,
        deadline: float,
        priority: int = 0,
        lane: int = 0,
        once: bool = False,
    ) -> None:
        self.client = client
        self.id = id
        self.model = model
        self.payload = payload
        self.size = len(payload)
        self.deadline = deadline
        self.priority = priority
        self.lane = lane
        self.once = once
        self.state = ItemState.QUEUED
        self.worker: Worker | None = None
        self.ticket = 0
        self.deaths = 0
        self.losses = 0
        self.suspect = False
