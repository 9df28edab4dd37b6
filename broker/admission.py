"""Whether new items are let in: caps on what may wait, and whether they can be done in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zstreamer import errors
from zstreamer.errors import Overloaded, ZStreamerError
from zstreamer.protocol import Run

if TYPE_CHECKING:
    from zstreamer.broker.clients import Client
    from zstreamer.broker.models import Model
    from zstreamer.broker.scheduler import Scheduler
    from zstreamer.config import BrokerConfig

MARGIN = 1.1
"""Under overload everyone who is let in waits as long as the prediction allows, so that one
that is right on average would make half of them late."""


def refusal(
    config: BrokerConfig, queued: Scheduler, client: Client, model: Model | None, run: Run
) -> ZStreamerError | None:
    """Return why these items cannot be taken now, or None where they can.

    All or none of the run. The caller asks again for each item of many small calls that came
    as one run; one large call, with a lane of its own, is of no use in part.
    """
    sizes = list(map(len, run.slots))  # type: ignore[arg-type]  # payloads, as `Intake` has seen to
    size, count = sum(sizes), len(sizes)
    wait = predicted_wait(client, model, run)
    items, bytes_ = queued.queued_items + count, queued.queued_bytes + size
    if items > config.max_items or bytes_ > config.max_bytes:
        return Overloaded("the broker's queue is full", retry_after=wait or 1.0)
    if len(client.items) + count > config.client_items or client.bytes + size > config.client_bytes:
        return Overloaded("this client has too much open work", retry_after=wait or 1.0)
    largest = max(sizes, default=0)
    if largest > config.max_payload:
        words = f"a payload of {largest} bytes exceeds the limit of {config.max_payload}"
        return errors.TooLarge(words)
    if wait and wait * MARGIN > max(run.budgets, default=0) / 1000:
        return Overloaded(
            f"about {wait:.1f} s of work are ahead, more than the budget allows", retry_after=wait
        )
    return None


def predicted_wait(client: Client, model: Model | None, run: Run) -> float:
    """Return the seconds until the last of these is answered; 0 where that is not known.

    Where nothing waits for a worker it counts as not known, and whoever comes is let in.
    """
    if model is None or not model.queue.items or not (rate := model.rate):
        return 0.0
    count = len(run.ids)
    queue = model.queue
    at_workers = model.out + model.others + count
    wait = (queue.at_most_ahead(client.id, run.priority, count) + at_workers) / rate
    if (wait + model.batch_time) * MARGIN > max(run.budgets, default=0) / 1000:
        # Close enough to look at what each of the other clients has.
        wait = (queue.ahead(client.id, run.priority, count) + at_workers) / rate
    return wait + model.batch_time
