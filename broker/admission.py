"""New items on their way into the queue: which are admitted, and what the others are answered.

There are caps on what may wait, and items that cannot be done in time are refused.
"""

from __future__ import annotations

from zstreamer import errors
from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.family import Family
from zstreamer.broker.lots import Lot
from zstreamer.broker.models import Model
from zstreamer.broker.scheduler import Scheduler
from zstreamer.broker.tenants import TenantFull
from zstreamer.config import BrokerConfig
from zstreamer.errors import ModelNotFound, NoWorker, Overloaded, TooLarge, ZStreamerError
from zstreamer.system.logs import event
from zstreamer.wire import protocol
from zstreamer.wire.protocol import MAX_BUDGET, NO_PAYLOAD, PART, Buffer, Run
from zstreamer.wire.tags import line, tag

MARGIN = 1.1
"""Under overload every admitted item waits as long as the prediction allows, so that one
that is right on average would make half of them late."""

NAMED = 100
"""Models that an error names."""

_READY = int(protocol.Flag.READY)
_ONCE = int(protocol.Flag.ONCE)  # an enum's & costs as much as the rest of a small run


class QueueFull(Overloaded):
    """The broker's limits are reached."""


class ClientFull(Overloaded):
    """A client's limits are reached."""


class TooMuchAhead(Overloaded):
    """The answer would come too late."""


class Draining(Overloaded):
    """The broker shuts down."""


_REASONS: dict[type, str] = {
    QueueFull: "queue_full",
    ClientFull: "client_full",
    TenantFull: "tenant",
    TooMuchAhead: "budget",
    Draining: "draining",
}


def reason(refusal: ZStreamerError) -> str:
    """Return what the metrics call a refusal: one of a few words."""
    return _REASONS.get(type(refusal)) or refusal.kind


class Admission:
    """Lets items in or refuses them.

    Args:
        config: the broker's limits.
        scheduler: takes what is admitted.
        born: monotonic seconds at which the broker started.

    Attributes:
        draining: nothing new is admitted.
    """

    def __init__(self, config: BrokerConfig, scheduler: Scheduler, born: float) -> None:
        self.draining = False
        self._config = config
        self._scheduler = scheduler
        self._born = born

    def submit(self, now: float, client: ClientRecord, run: Run) -> bool:
        """Take a run of items; return whether any of them is admitted."""
        run = self._new_items(client, run)
        if client.tenant.limited:
            run = run._replace(priority=client.tenant.priority(run.priority))
        if self._scheduler.versions.plain:
            return self._take(now, client, run)
        parts = self._scheduler.versions.split(run)
        if len(parts) > 1:
            return self._take_parts(now, client, run, parts)
        return self._take(now, client, *parts[0])

    def _take_parts(
        self, now: float, client: ClientRecord, run: Run, parts: list[tuple[Run, Family | None]]
    ) -> bool:
        """Take a run of which several versions get a part: the limits hold for the whole of it."""
        models = self._scheduler.models
        wait = max(predicted_wait(client, models.get(part.model), part) for part, _ in parts)
        full = over_limits(now, self._config, self._scheduler, client, run, wait)
        if run.lane == 0:
            if full is not None:
                parts = [(one, family) for part, family in parts for one in _singles(part)]
            taken = [self._take(now, client, *part, within=full is None) for part in parts]
            return any(taken)
        asked = (self._refusal(now, client, part, within=True) for part, _ in parts)
        refusal = next(filter(None, asked), full)
        for part, family in parts:
            if refusal is not None:
                self._refuse(client, part, refusal)
            else:
                self._admit(now, client, part, family)
        return refusal is None

    def _take(
        self,
        now: float,
        client: ClientRecord,
        run: Run,
        family: Family | None = None,
        within: bool = False,
    ) -> bool:
        refusal = self._refusal(now, client, run, within)
        if refusal is None:
            self._admit(now, client, run, family)
            return True
        if isinstance(refusal, Overloaded | TooLarge) and run.lane == 0 and len(run.ids) > 1:
            # Many small calls in one run: what fits for some need not wait for all.
            taken = [self._take(now, client, one, family, within) for one in _singles(run)]
            return any(taken)
        self._refuse(client, run, refusal)
        return False

    def _admit(self, now: float, client: ClientRecord, run: Run, family: Family | None) -> None:
        name, priority, flags, lane, ids, budgets, slots = run
        scheduler = self._scheduler
        model = scheduler.models.named(name)
        payloads: list[Buffer] = slots  # type: ignore[assignment]  # after `_new_items`
        once, movable = bool(flags & _ONCE), bool(flags & _READY)
        lot = Lot(
            client, model, ids, budgets, payloads, now, priority, lane, once=once, movable=movable
        )
        lot.family = family
        count = len(ids)
        client.open(lot)
        client.tenant.admit(count, lot.size)
        if lot.size > PART:
            for part in lot.apart():
                scheduler.enqueue(part)
        elif ids:
            scheduler.enqueue(lot)
        scheduler.counts["items"] += count
        model.tally.admitted += count
        model.tally.bytes_in += lot.size
        if family is not None:
            scheduler.versions.shadow(now, lot)
        if (followed := scheduler.bundles.followed) is not None:
            items = line(tag(client.id, id) for id in run.ids)
            followed.append(event("items came", model=run.model, items=items))

    def _new_items(self, client: ClientRecord, run: Run) -> Run:
        """Return the run without ids that are open already, and with payloads in all slots.

        Those that came without a payload are answered with what is wrong.
        """
        ids = run.ids
        if ids and max(run.budgets) > MAX_BUDGET:
            run = run._replace(budgets=[min(b, MAX_BUDGET) for b in run.budgets])
        known = not client.items.keys().isdisjoint(ids) or len(set(ids)) < len(ids)
        if not known and NO_PAYLOAD.isdisjoint(map(type, run.slots)):
            return run
        rows: dict[int, tuple[int, int, protocol.Slot]] = {}
        for id, budget, slot in zip(run.ids, run.budgets, run.slots, strict=True):
            payload = client.receiver.payload(slot)
            if id in client.items or id in rows:
                continue
            if isinstance(payload, list):
                self._answer_error(client, [id], payload)
            else:
                rows[id] = id, budget, payload
        columns = zip(*rows.values(), strict=True) if rows else ((), (), ())
        ids, budgets, slots = map(list, columns)
        return run._replace(ids=ids, budgets=budgets, slots=slots)

    def _refuse(self, client: ClientRecord, run: Run, refusal: ZStreamerError) -> None:
        elsewhere = isinstance(refusal, Overloaded | ModelNotFound | NoWorker)
        wire = errors.refusal(refusal) if elsewhere else errors.to_wire(refusal)
        self._refused(client, run, reason(refusal))
        self._answer_error(client, run.ids, wire)

    def _refused(self, client: ClientRecord, run: Run, why: str) -> None:
        """Count a refusal; names that nobody has served are not kept."""
        model = self._scheduler.models.get(run.model)
        counts = model.tally.refused if model and model.known else self._scheduler.strangers
        counts[why] += len(run.ids)
        client.tenant.refused += len(run.ids)
        if (followed := self._scheduler.bundles.followed) is not None:
            items = line(tag(client.id, id) for id in run.ids)
            followed.append(event("items refused", model=run.model, reason=why, items=items))

    def _answer_error(self, client: ClientRecord, ids: list[int], error: list[object]) -> None:
        self._scheduler.counts["refused items"] += len(ids)
        client.answer(ids, [error] * len(ids))
        self._scheduler.dirty[client] = None

    def _refusal(
        self, now: float, client: ClientRecord, run: Run, within: bool = False
    ) -> ZStreamerError | None:
        """Return why a run is not taken; ``within`` where it is known to be within the limits."""
        if self.draining:
            return draining()
        model = self._scheduler.models.get(run.model)
        if model is None or not model.known:
            if not 0 < len(run.model) <= protocol.MAX_NAME:
                return errors.BadRequest(
                    f"model name must have 1 to {protocol.MAX_NAME} characters"
                )
            full = model is None and self._scheduler.models.full
            if full or now - self._born >= self._config.model_grace:
                return self.model_not_found(run.model)
        elif (model.gave_up or model.family is not None) and model.broken:
            return NoWorker(model.state_in_words(), final=True)
        if run.flags & _READY and not (model and model.warm):
            words = model.state_in_words() if model else f"no worker serves model {run.model!r}"
            return NoWorker(words)
        wait = predicted_wait(client, model, run)
        over = None
        if not within:
            over = over_limits(now, self._config, self._scheduler, client, run, wait)
        return over or (too_late(run, wait) if wait else None)

    def model_not_found(self, name: str) -> ModelNotFound:
        """Return the error that names the models which are served."""
        known = (m for m in self._scheduler.models.values() if m.workers or m.served or m.versions)
        models = sorted(model.name for model in known if model.known)
        words = ", ".join(map(repr, models[:NAMED])) or "none"
        if len(models) > NAMED:
            words += f" and {len(models) - NAMED:,} more"
            models = models[:NAMED]
        words = f"no worker for model {name!r} has connected; served: {words}"
        if not models:
            words += f"; start one with `zstreamer worker MODULE:CLASS --model {name}`"
        return ModelNotFound(words, models)


def _singles(run: Run) -> list[Run]:
    rows = zip(run.ids, run.budgets, run.slots, strict=True)
    return [run._replace(ids=[i], budgets=[b], slots=[s]) for i, b, s in rows]


def over_limits(
    now: float,
    config: BrokerConfig,
    queued: Scheduler,
    client: ClientRecord,
    run: Run,
    wait: float,
) -> ZStreamerError | None:
    """Return why these items are more than broker, client and tenant may have, or None.

    All or none of the run. The caller asks again for each item of many small calls that came
    as one run; one large call, with a lane of its own, is of no use in part.

    Args:
        now: monotonic seconds.
        config: the broker's limits.
        queued: what waits.
        client: whose items.
        run: the items, with payloads.
        wait: predicted seconds until they are answered; 0 where that is not known.
    """
    sizes = list(map(len, run.slots))  # type: ignore[arg-type]  # payloads, as `Admission` has seen to
    size, count = sum(sizes), len(sizes)
    items, bytes_ = queued.queued_items + count, queued.queued_bytes + size
    if items > config.max_items or bytes_ > config.max_bytes:
        return QueueFull("the broker's queue is full", retry_after=wait or 1.0)
    if len(client.items) + count > config.client_items or client.bytes + size > config.client_bytes:
        return ClientFull("this client has too much open work", retry_after=wait or 1.0)
    tenant = client.tenant
    if tenant.limited:
        full = tenant.refusal(now, count, size, config.max_items, config.max_bytes, wait)
        if full is not None:
            return full
    if size > config.max_payload and (largest := max(sizes)) > config.max_payload:
        words = f"a payload of {largest} bytes exceeds the limit of {config.max_payload}"
        return errors.TooLarge(words)
    return None


def too_late(run: Run, wait: float) -> TooMuchAhead | None:
    """Return why none of these items would be answered in time, or None where one may be."""
    if wait and wait * MARGIN > max(run.budgets, default=0) / 1000:
        words = f"about {wait:.1f} s of work are ahead, more than the budget allows"
        return TooMuchAhead(words, retry_after=wait)
    return None


def predicted_wait(client: ClientRecord, model: Model | None, run: Run) -> float:
    """Return the seconds until the last of these is answered; 0 where that is not known.

    Where nothing waits for a worker it counts as not known, and everything is admitted.
    """
    if model is None or not model.queue.items or not (rate := model.rate):
        return 0.0
    count = len(run.ids)
    queue = model.queue
    at_workers = model.out + model.others + count
    wait = (queue.at_most_ahead(client, run.priority, count) + at_workers) / rate
    if (wait + model.batch_time) * MARGIN > max(run.budgets, default=0) / 1000:
        # Close enough to look at what each of the other clients has.
        wait = (queue.ahead(client, run.priority, count) + at_workers) / rate
    return wait + model.batch_time


def draining() -> Overloaded:
    """Return the refusal of new items while the broker drains."""
    return Draining("the broker is shutting down", retry_after=1.0)
