"""The items that a worker holds: which wait, which its model may run next, and which it runs.

    take ─> waiting ─> plan ─> claimed: it runs ─> done
              │          ^ may change until the model claims it
              └─> prepared, where the model looks at items on arrival

An item goes on to the model's process as it comes; what stays here is its ticket, its budget, its
cost and its place. The states of an item are in docs/protocol.md.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

from zstreamer import errors
from zstreamer.batching import FULL, Batcher, BatchTime
from zstreamer.config import WorkerConfig
from zstreamer.system.logs import Event, event
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Fate, Flag
from zstreamer.wire.tags import line
from zstreamer.wire.transfer import Parts
from zstreamer.worker import pipe
from zstreamer.worker.jobs import Job
from zstreamer.worker.link import WorkerLink
from zstreamer.worker.measures import Measures
from zstreamer.worker.patience import Patience
from zstreamer.worker.running import Running
from zstreamer.worker.suspects import Suspects
from zstreamer.worker.tally import Tally

_ONCE, _ALONE = int(Flag.ONCE), int(Flag.ALONE)  # an enum's & costs a microsecond or two
_MORE, _GO = int(Flag.MORE), int(Flag.GO)

MAX_FOLLOWED = 10_000
"""Lines on the way of items that wait to be logged."""

LOOK = 0.002
"""Seconds after which the agent looks for a claim that it has not heard of: a free model begins at
once, but does not wake its agent to say so."""

MAX_LOOK = 0.1
"""Longest pause between two such looks, in seconds: it doubles while the model stays idle."""


class Backlog:
    """Everything that a worker keeps of its items.

    Args:
        config: what `zstreamer worker` was told.
        now: monotonic seconds.

    Attributes:
        jobs: the items, by the number that they have here.
        time: the model's batch time, learned from what runs.
        patience: how long the model may take for what it does now.
        tally: what its batches were like.
        followed: what has happened to which items, for the log; None where nobody follows them.
        measures: how long items and batches took, and what became of items.
        running: the batches that its process has begun.
    """

    def __init__(self, config: WorkerConfig, now: float) -> None:
        self.jobs: dict[int, Job] = {}
        self.time = BatchTime()
        self.patience = Patience(config.predict_timeout, self.time)
        self.tally = Tally()
        self.measures = Measures()
        self.followed: deque[Event] | None = None
        self._out: list[pipe.PipeMessage] = []
        self._by_ticket: dict[tuple[int, int], Job] = {}
        self._batcher: Batcher[Job] = Batcher(
            config.batch_size,
            config.max_latency,
            config.max_batch_cost,
            self.time,
            config.latency_target,
        )
        self._costed: dict[int, Job] = {}
        self._word: bool | None = None
        self._suspects = Suspects()
        self._preparing: set[int] = set()
        self.running = Running()
        self._plan: list[int] = []
        self._ahead = False
        self._why = ""
        self._serial = 0
        self._hold_until = math.inf
        self._free_at = now
        self._look_at = math.inf
        self._next_deadline = math.inf
        self._next_id = 0

    @property
    def busy(self) -> bool:
        """Whether the model runs a batch, or looks at items that have come."""
        return bool(self.running or self._preparing)

    @property
    def leftovers(self) -> int:
        """Entries of its tables that belong to no job: none, or something has gone wrong."""
        tables = (*self._by_ticket.values(), *self._costed.values())
        return sum(job.id not in self.jobs for job in tables) + len(self._batcher) * (not self.jobs)

    # What brokers have said

    def take(
        self, now: float, link: WorkerLink, work: protocol.Work, warm: pipe.Booted | None
    ) -> None:
        """Items have come; they go back where there is no warm model for them."""
        jobs: list[Job] = []
        payloads: list[bytes] = []
        for ticket, budget, slot in zip(work.tickets, work.budgets, work.slots, strict=True):
            payload = _payload(link, slot)
            link.jobs += 1
            if warm is None:
                link.done(ticket, [Fate.RETURNED, "the model is not ready", {}])
                continue
            if isinstance(payload, errors.ZStreamerError):
                link.done(ticket, errors.to_wire(payload))
                continue
            self._next_id += 1
            job = Job(self._next_id, link, ticket, now + budget / 1000, now)
            self.jobs[job.id] = job
            self._by_ticket[id(link), ticket] = job
            self._next_deadline = min(self._next_deadline, job.deadline)
            jobs.append(job)
            payloads.append(payload)
        self._listen(work.flags, bool(jobs) and warm is not None and warm.has_cost)
        if warm is None or not jobs:
            return
        if work.tags:
            self._follow(work, jobs)
        if work.traces:
            self._out.append(pipe.Traces(_traces(work.traces, jobs)))
        once, alone = bool(work.flags & _ONCE), bool(work.flags & _ALONE)
        self._out.append(pipe.Items([job.id for job in jobs], payloads, once, alone))
        if alone and warm.has_cost:
            self._suspects.add(jobs)
        elif alone:
            self._batcher.add_group(jobs)
        elif warm.has_cost:  # `prepared` will say it
            self._costed.update((job.id, job) for job in jobs)
        else:
            self._batcher.add(now, jobs)

    def _listen(self, flags: int, costed: bool) -> None:
        """Hear whether more is coming; what has no cost yet is awaited before a batch begins."""
        self._word = True if flags & _MORE else False if flags & _GO else None
        if self._word or not (costed or self._costed):
            self._batcher.told(self._word)

    def _follow(self, work: protocol.Work, jobs: Sequence[Job]) -> None:
        tags = dict(zip(work.tickets, work.tags, strict=True))
        for job in jobs:
            job.tag = tags[job.ticket]
        if self.followed is None:
            self.followed = deque(maxlen=MAX_FOLLOWED)
        self._tell("items came", jobs)

    def _tell(self, words: str, jobs: Iterable[Job]) -> None:
        if self.followed is not None and (tags := [job.tag for job in jobs if job.tag]):
            self.followed.append(event(words, items=line(tags)))

    def cancel(self, link: WorkerLink, tickets: Sequence[int]) -> None:
        """A broker no longer wants these; what has begun goes on."""
        jobs = [self._by_ticket.get((id(link), ticket)) for ticket in tickets]
        self._drop([job for job in jobs if job is not None and not job.begun], "cancelled")

    def lost(self, link: WorkerLink) -> None:
        """A broker's connection is gone: its tickets are void."""
        jobs = [job for job in self.jobs.values() if job.link is link]
        for job in jobs:
            self._by_ticket.pop((id(link), job.ticket), None)
            job.link = None
        self._drop([job for job in jobs if not job.begun], "lost")
        self._listen(0, costed=False)

    # What the model's process has said

    def preparing(self, now: float, ids: Iterable[int]) -> None:
        """The model's prepare() or cost() is about to see these."""
        self._preparing = set(ids)
        self.patience.prepare(now, map(self.jobs.__getitem__, self._preparing & self.jobs.keys()))

    def prepared(self, now: float, message: pipe.Prepared) -> None:
        """It has seen all that came; those with a cost can be planned now."""
        self._preparing.clear()
        self.patience.prepared()
        jobs = []
        for id, cost in zip(message.ids, message.costs, strict=True):
            job = self._costed.pop(id, None)
            if job is not None:
                job.cost = cost
                jobs.append(job)
        if jobs:
            self._batcher.add(now, jobs)
            self._all_costed()
        self._plan_suspects(message.ids)

    def _all_costed(self) -> None:
        if not self._costed and not self._word:
            self._batcher.told(self._word)

    def _plan_suspects(self, ids: Iterable[int]) -> None:
        """These are prepared, or gone: a group that was waiting for them alone can run."""
        for group in self._suspects.ready(ids):
            if left := [job for job in group if job.id in self.jobs]:
                self._batcher.add_group(left)

    def claimed(self, now: float, claim: pipe.Claim) -> None:
        """A batch begins."""
        since = min(now, self._look_at - LOOK)
        self._look_at = math.inf
        self.running.begun(claim)
        self._plan = []
        begun = [self.jobs[id] for id in claim.ids if id in self.jobs]
        if not self.running:
            self.patience.end()
        elif self.running.first == claim.ids:
            self.patience.begin(now, len(claim.ids), begun)
        self.tally.begun(since, self._why, [job.cost for job in begun])
        self.measures.begun(since, begun, len(claim.ids))
        for job in begun:
            job.begun = True
            if job.link is not None:
                job.link.begun(since, job.ticket)
        self._batcher.begun(claim.ids)
        self._tell("batch begins", begun)

    def done(self, now: float, done: pipe.Done) -> None:
        """Outcomes have come: of a batch, or of items that could not be decoded or prepared."""
        failed = self.measures.done(done.outcomes, done.seconds)
        self._tell("items end", (self.jobs[id] for id in done.ids if id in self.jobs))
        if done.seconds and done.ids:
            self.time.observe(len(done.ids), done.seconds)
        unclaimed = []
        for id, outcome in zip(done.ids, done.outcomes, strict=True):
            job = self.jobs.get(id)
            if job is not None:
                if not job.begun:
                    unclaimed.append(id)
                self._end(job, outcome)
        if unclaimed:  # the process holds them no more
            self._unplan(unclaimed)
        if len(unclaimed) < len(done.ids):  # the next batch may have begun already
            self._batcher.ended(now, len(done.ids))
            self.patience.answered(done.seconds)
            self.tally.failed += failed
        if self.running.ended(done.ids):
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        """A batch has ended; the next may be under way already."""
        self.patience.end()
        if following := self.running.first:
            jobs = [self.jobs[id] for id in following if id in self.jobs]
            self.patience.begin(now, len(following), jobs)
        else:
            self.tally.ended(now)
        self._expect_claim(now)

    def model_gone(self, how: str) -> None:
        """The process has ended: nothing of what it held will come back from it."""
        # Not one: an item that kills on arrival is to be found although others ran meanwhile.
        batches = self.running.suspects()
        batches.update(dict.fromkeys(self._preparing, len(self._preparing)))
        for job in list(self.jobs.values()):
            self.measures.outcomes["lost" if job.id in batches else "returned"] += 1
            if job.id in batches:
                self._end(job, [Fate.LOST, how, {"batch": batches[job.id]}])
            else:
                self._end(job, [Fate.RETURNED, how, {}])
        self._out.clear()
        self._batcher.clear()
        self._costed.clear()
        self._suspects.clear()
        self._preparing.clear()
        self.patience.gone()
        self.tally.gone(how)
        self.running.clear()
        self._plan = []
        self._look_at = self._hold_until = math.inf

    # What time brings

    def poll(self, now: float, warm: bool) -> list[pipe.PipeMessage]:
        """Drop what is too late, plan what may run next; return what the process is to be told."""
        if now >= self._next_deadline:
            self._expire(now)
        if now >= self._look_at:
            self._look_at = now + min(MAX_LOOK, now - self._free_at)
        self._hold_until = math.inf
        if warm:
            self._replan(now)
        messages, self._out = self._out, []
        return messages

    def wake_at(self) -> float:
        """Return the monotonic seconds at which `poll` must be called at the latest."""
        return min(self._hold_until, self._look_at, self._next_deadline)

    def _expire(self, now: float) -> None:
        waiting = [job for job in self.jobs.values() if not job.begun]
        self._drop([job for job in waiting if job.deadline <= now], "expired")
        left = (job.deadline for job in waiting if job.deadline > now)
        self._next_deadline = min(left, default=math.inf)

    def _replan(self, now: float) -> None:
        plan = self._batcher.next(now, self.running.last)
        if plan.hold_until is not None:
            self._hold_until = plan.hold_until
        ids = [job.id for job in plan.items]
        self._why = plan.why
        ahead = self.running.may_be_claimed_ahead(plan.why in FULL, plan.alone)
        if ids != self._plan or (ids and ahead != self._ahead):
            self._serial += 1
            self._plan, self._ahead = ids, ahead
            message = pipe.Plan(self._serial, ids, ahead)
            self.running.planned(message, plan.alone)
            self._out.append(message)
            self._expect_claim(now)

    def _expect_claim(self, now: float) -> None:
        """If the model takes a plan now it is being claimed."""
        takes = self._plan and (self._ahead or not self.running)
        self._free_at = now
        self._look_at = now + LOOK if takes else math.inf

    # Ends

    def _drop(self, jobs: Sequence[Job], why: str) -> None:
        """These are not to run, though they wait; the process must not keep them either."""
        if not jobs:
            return
        for job in jobs:
            self._end(job, [Fate.DROPPED, why, {}])
            self.measures.outcomes[why] += 1
        ids = [job.id for job in jobs]
        self._unplan(ids)
        self._out.append(pipe.Drop(ids))

    def _unplan(self, ids: Sequence[int]) -> None:
        self._batcher.remove(ids)
        if self._costed:
            for id in ids:
                self._costed.pop(id, None)
            self._all_costed()
        self._plan_suspects(ids)

    def _end(self, job: Job, outcome: protocol.Slot) -> None:
        del self.jobs[job.id]
        if job.link is not None:
            self._by_ticket.pop((id(job.link), job.ticket), None)
            job.link.done(job.ticket, outcome)


def _traces(rows: Iterable[protocol.Traced], jobs: Iterable[Job]) -> list[protocol.Traced]:
    """Return what WORK says of traces, with the items' numbers here in the tickets' place."""
    ids = {job.ticket: job.id for job in jobs}
    return [row._replace(ids=[ids[ticket] for ticket in row.ids if ticket in ids]) for row in rows]


def _payload(link: WorkerLink, slot: protocol.Slot) -> bytes | errors.ZStreamerError:
    if type(slot) is bytes:
        return slot
    if type(slot) is int:
        came = link.receiver.take(slot)
        if isinstance(came, Parts):
            return came.join()
        if came is None:
            return errors.BadRequest(f"transfer {slot} is not known")
        return errors.TooLarge(
            "the input exceeds this worker's max_payload: send less, or raise it"
        )
    if slot is None or isinstance(slot, int | list):
        return errors.BadRequest("an item without payload")
    return bytes(memoryview(slot))  # type: ignore[arg-type]  # a received frame
