"""The agent as a state machine: told the time and what happened, it returns what to do.

    on_connected, on_message, on_lost   what a broker's connection has done
    on_child, on_child_gone             what the model's process has said, and that it ended
    drain                               finish what is here, take nothing new, then exit
    poll                                → actions for the driver
    wake_at                             when poll must be called again although nothing happens

Items go on to the child as they come. What the agent keeps of them is their ticket, budget and
cost, and the plan: the batch that the child may claim the moment its model is free. Until it
does, the plan may still change. No socket, process, clock, thread or random source in here;
the states of an item are in docs/protocol.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum

from zstreamer import errors, protocol
from zstreamer.batching import Batcher, BatchTime
from zstreamer.config import WorkerConfig
from zstreamer.protocol import Fate, Flag, Frames, ProtocolError, WorkerState
from zstreamer.transfer import Parts
from zstreamer.worker import pipe
from zstreamer.worker.actions import (
    Action,
    Close,
    Connect,
    Exit,
    KillChild,
    Send,
    StartChild,
    Tell,
)
from zstreamer.worker.jobs import Job
from zstreamer.worker.link import LinkState, WorkerLink

BACKOFF = 0.05
MAX_BACKOFF = 0.5
"""Seconds between attempts to connect."""

GREETING_TIMEOUT = 5.0
"""Seconds from the start of a connection to its WELCOME, then it is tried anew."""

BEAT = 1.0
"""Seconds of silence after which a broker is told that this loop still turns."""

RESTART_BACKOFF = 0.1
MAX_RESTART_BACKOFF = 10.0
"""Seconds before a model's process is started again, doubling while it fails to boot."""

MIN_PREDICT_TIMEOUT = 30.0
PREDICT_TIMEOUT_FACTOR = 10.0
"""A predict counts as hung after the longer of 30 s and 10 × its usual time, unless told."""

LOOK = 0.002
"""Seconds after which a claim is looked for that nothing else has brought to light: a model that
is free begins at once, but does not wake its agent to say so."""

MAX_LOOK = 0.1
"""Seconds between two such looks at most, doubling while the model stays idle against all odds."""

POOL = 4
"""Batches that a model with cost() has to choose from, besides the two of every window."""


class ChildState(Enum):
    """Where the model's process stands."""

    NONE = "none"
    BOOTING = "booting"
    WARM = "warm"
    KILLED = "killed"


class WorkerCore:
    """One worker: its brokers, its items and the state of its model's process.

    Args:
        config: what `zstreamer worker` was told.
        id: 63 random bits, new for each incarnation.
        now: monotonic seconds.
        jitter: returns numbers in [0, 1); spreads the attempts to connect of many workers.
        info: plain values that go into HELLO, for people who look at the broker.
    """

    def __init__(
        self,
        config: WorkerConfig,
        id: int,
        now: float,
        jitter: Callable[[], float],
        info: dict[str, object] | None = None,
    ) -> None:
        self.config = config
        self.id = id
        self.links = [WorkerLink(a, now, config.max_payload) for a in config.broker]
        self.state = WorkerState.BOOTING
        self.text = ""
        self.child = ChildState.NONE
        self.time = BatchTime()
        self.jobs: dict[int, Job] = {}
        self._jitter = jitter
        self._info = info or {}
        self._by_ticket: dict[tuple[int, int], Job] = {}
        self._batcher: Batcher[Job] = Batcher(
            config.batch_size,
            config.max_latency,
            config.max_batch_cost,
            self.time,
            config.latency_target,
        )
        self._costed: dict[int, Job] = {}
        self._preparing: set[int] = set()
        self._preparing_since = 0.0
        self._booted = pipe.Booted(has_cost=False)
        self._running: list[int] = []
        self._running_since = 0.0
        self._plan: list[int] = []
        self._serial = 0
        self._hold_until = math.inf
        self._free_at = now
        self._look_at = math.inf
        self._next_deadline = math.inf
        self._next_id = 0
        self._child_since = now
        self._start_at = now
        self._failures = 0
        self._draining = False
        self._exiting = False
        self._actions: list[Action] = []

    # What a broker's connection has done

    def on_connected(self, now: float, link: WorkerLink) -> None:
        """The connection is open: say HELLO."""
        if link.state is not LinkState.CONNECTING:
            return
        link.enter(LinkState.GREETING, now)
        pool = POOL * self.config.batch_size if self._booted.has_cost else 0
        info = {
            **self._info,
            "model": self.config.model,
            "batch_size": self.config.batch_size,
            "pool": pool,
        }
        if self._booted.inputs or self._booted.outputs:
            info |= {"inputs": self._booted.inputs, "outputs": self._booted.outputs}
        hello = protocol.Hello(protocol.Role.WORKER, self.id, info)
        self._actions.append(Send(link, protocol.hello(hello)))

    def on_lost(self, now: float, link: WorkerLink) -> None:
        """The connection is gone, or could not be made: its tickets are void."""
        if link.state is LinkState.DOWN:
            return
        if link.state is LinkState.READY:
            link.attempts = 0
        link.enter(LinkState.DOWN, now)
        dropped = []
        for job in [job for job in self.jobs.values() if job.link is link]:
            job.link = None
            if not job.begun:
                dropped.append(job.id)
                self._forget(job)
        if dropped:
            self._drop(dropped)
        delay = min(MAX_BACKOFF, BACKOFF * 2**link.attempts) * (0.5 + 0.5 * self._jitter())
        link.retry_at = now + delay
        link.attempts = min(link.attempts + 1, 10)
        self._by_ticket = {k: j for k, j in self._by_ticket.items() if j.link is not None}

    def on_message(self, now: float, link: WorkerLink, frames: Frames) -> None:
        """A message has come."""
        if link.state not in (LinkState.GREETING, LinkState.READY):
            return  # read together with what ended the connection
        try:
            message = protocol.decode(frames)
        except ProtocolError as error:
            link.refused = f"{link.address} is no broker: {error}"
            self._close(now, link)
            return
        match message:
            case protocol.Work():
                self._work(now, link, message)
            case protocol.Welcome():
                self._welcome(now, link)
            case protocol.Cancel():
                self._cancel(link, message.ids)
            case protocol.Part():
                link.receiver.part(message.transfer, message.data)
                link.tell(protocol.PartOk(message.transfer))
            case protocol.PartOk():
                link.sender.ok()
            case protocol.State():
                link.drained = True
            case protocol.Refuse():
                link.refused = errors.from_wire(message.error).message
                self._close(now, link)
            case _:
                pass  # PING, and whatever a later broker says that does not concern us

    # What the model's process has done

    def on_child(self, now: float, message: pipe.PipeMessage) -> None:
        """The child has said something."""
        match message:
            case pipe.Claim():
                self._claimed(now, message)
            case pipe.Done():
                self._done(now, message)
            case pipe.Preparing():
                self._preparing = set(message.ids)
                self._preparing_since = now
            case pipe.Prepared():
                self._prepared(now, message)
            case pipe.Booted():
                self.child = ChildState.WARM
                self._failures = 0
                if message != self._booted:
                    self._booted = message
                    self._greet_again(now)
                if not self._draining:
                    self._enter(WorkerState.WARM, "")
            case pipe.Failed():
                self.text = message.text
                if message.final:
                    self._failures = self.config.boot_attempts
            case _:
                pass

    def on_child_gone(self, now: float, how: str) -> None:
        """The child has ended; all that it wrote before has been passed to `on_child`."""
        booting = self.child is not ChildState.WARM and not self._running and not self._preparing
        words = self.text or f"the model's process {how}"
        self.child = ChildState.NONE
        # Two batches: an item that kills on arrival is to be found although others ran meanwhile.
        batches = dict.fromkeys(self._running, len(self._running))
        batches.update(dict.fromkeys(self._preparing, len(self._preparing)))
        for job in list(self.jobs.values()):
            if job.id in batches:
                self._end(job, [Fate.LOST, how, {"batch": batches[job.id]}])
            else:
                self._end(job, [Fate.RETURNED, how, {}])
        self._batcher.clear()
        self._costed.clear()
        self._preparing.clear()
        self._running = []
        self._plan = []
        if booting:
            self._failures += 1
        if self._draining:
            return
        if self._failures >= self.config.boot_attempts:
            self._enter(WorkerState.BROKEN, words)
            self._exit_broken(words)
            return
        backoff = min(MAX_RESTART_BACKOFF, RESTART_BACKOFF * 2**self._failures)
        self._start_at = now + (backoff if booting else 0.0)
        self._enter(WorkerState.RESTARTING, words)
        self.text = ""

    def drain(self) -> None:
        """Take nothing new, finish what is here, then exit."""
        self._draining = True
        self._enter(WorkerState.DRAINING, "the worker was asked to stop")

    # What to do

    def poll(self, now: float) -> list[Action]:
        """Do what is due and return what the driver must do now."""
        for link in self.links:
            self._check_link(now, link)
        self._check_child(now)
        if now >= self._next_deadline:
            self._expire(now)
        if now >= self._look_at:
            self._look_at = now + min(MAX_LOOK, now - self._free_at)
        self._replan(now)
        beta, alpha = int(self.time.beta * 1e6), int(self.time.alpha * 1e6)
        for link in self.links:
            if link.state is LinkState.READY:
                if now >= link.beat_at:
                    link.beat(len(self.jobs) - link.jobs, beta, alpha)
                messages = link.flush(now, len(self.jobs) - link.jobs, beta, alpha)
                if messages:
                    link.beat_at = now + BEAT
                self._actions.extend(Send(link, frames) for frames in messages)
        self._check_exit()
        actions, self._actions = self._actions, []
        return actions

    def wake_at(self) -> float:
        """Return the monotonic seconds at which `poll` must be called at the latest."""
        wake = min(self._hold_until, self._next_deadline)
        for link in self.links:
            if link.state is LinkState.READY:
                wake = min(wake, link.beat_at, link.begun_due)
            elif link.state is LinkState.DOWN:
                wake = min(wake, link.retry_at)
            else:
                wake = min(wake, link.since + GREETING_TIMEOUT)
        if self.child is ChildState.NONE and not self._draining:
            wake = min(wake, self._start_at)
        elif self.child is ChildState.BOOTING:
            wake = min(wake, self._child_since + self.config.boot_timeout)
        elif self.child is ChildState.WARM:
            wake = min(wake, self._hung_at(), self._look_at)
        return wake

    # Links

    def _check_link(self, now: float, link: WorkerLink) -> None:
        if link.state is LinkState.DOWN and now >= link.retry_at and not self._exiting:
            link.enter(LinkState.CONNECTING, now)
            self._actions.append(Connect(link))
        elif link.state in (LinkState.CONNECTING, LinkState.GREETING) and (
            now >= link.since + GREETING_TIMEOUT
        ):
            self._close(now, link)

    def _close(self, now: float, link: WorkerLink) -> None:
        self._actions.append(Close(link))
        self.on_lost(now, link)

    def _welcome(self, now: float, link: WorkerLink) -> None:
        link.enter(LinkState.READY, now)
        link.attempts = 0
        link.refused = ""
        link.beat_at = now + BEAT
        link.tell(protocol.State(self.state, self.text))

    def _greet_again(self, now: float) -> None:
        """HELLO knew too little of the model: say it again on a new connection."""
        for link in self.links:
            if link.state is not LinkState.DOWN:
                self._close(now, link)
                link.retry_at = now

    def _enter(self, state: WorkerState, text: str) -> None:
        self.state = state
        self.text = text
        for link in self.links:
            if link.state is LinkState.READY:
                link.tell(protocol.State(state, text))

    # Items

    def _work(self, now: float, link: WorkerLink, work: protocol.Work) -> None:
        jobs: list[Job] = []
        payloads: list[bytes] = []
        for ticket, budget, slot in zip(work.tickets, work.budgets, work.slots, strict=True):
            payload = _payload(link, slot)
            self._next_id += 1
            job = Job(self._next_id, link, ticket, now + budget / 1000, now)
            link.jobs += 1
            if self.child is not ChildState.WARM:
                link.done(ticket, [Fate.RETURNED, "the model is not ready", {}])
                continue
            if isinstance(payload, errors.ZStreamerError):
                link.done(ticket, errors.to_wire(payload))
                continue
            self.jobs[job.id] = job
            self._by_ticket[id(link), ticket] = job
            self._next_deadline = min(self._next_deadline, job.deadline)
            jobs.append(job)
            payloads.append(payload)
        if not jobs:
            return
        once = bool(work.flags & Flag.ONCE)
        self._actions.append(Tell(pipe.Items([job.id for job in jobs], payloads, once)))
        if work.flags & Flag.ALONE:
            self._batcher.add_group(jobs)
        elif self._booted.has_cost:
            self._costed.update((job.id, job) for job in jobs)
        else:
            self._batcher.add(now, jobs)

    def _prepared(self, now: float, message: pipe.Prepared) -> None:
        self._preparing.clear()
        jobs = []
        for id, cost in zip(message.ids, message.costs, strict=True):
            job = self._costed.pop(id, None)
            if job is not None:
                job.cost = cost
                jobs.append(job)
        if jobs:
            self._batcher.add(now, jobs)

    def _cancel(self, link: WorkerLink, tickets: Sequence[int]) -> None:
        dropped = []
        for ticket in tickets:
            job = self._by_ticket.get((id(link), ticket))
            if job is not None and not job.begun:
                dropped.append(job.id)
                self._end(job, [Fate.DROPPED, "cancelled", {}])
        if dropped:
            self._drop(dropped)

    def _expire(self, now: float) -> None:
        dropped = []
        self._next_deadline = math.inf
        for job in list(self.jobs.values()):
            if job.begun:
                continue
            if job.deadline <= now:
                dropped.append(job.id)
                self._end(job, [Fate.DROPPED, "expired", {}])
            else:
                self._next_deadline = min(self._next_deadline, job.deadline)
        if dropped:
            self._drop(dropped)

    def _drop(self, ids: list[int]) -> None:
        self._batcher.remove(ids)
        for id in ids:
            self._costed.pop(id, None)
        self._actions.append(Tell(pipe.Drop(ids)))

    def _replan(self, now: float) -> None:
        """Tell the child what it may run next, where that has changed."""
        self._hold_until = math.inf
        if self.child is not ChildState.WARM:
            return
        plan = self._batcher.next(now, bool(self._running))
        if plan.hold_until is not None:
            self._hold_until = plan.hold_until
        ids = [job.id for job in plan.items]
        if ids != self._plan:
            self._serial += 1
            self._plan = ids
            self._actions.append(Tell(pipe.Plan(self._serial, ids)))
            if not self._running:
                self._expect_claim(now)

    def _expect_claim(self, now: float) -> None:
        """The model is free: if there is a plan it is being claimed."""
        self._free_at = now
        self._look_at = now + LOOK if self._plan else math.inf

    def _claimed(self, now: float, claim: pipe.Claim) -> None:
        since = min(now, self._look_at - LOOK)
        self._look_at = math.inf
        self._running = list(claim.ids)
        self._running_since = now
        self._plan = []
        for id in claim.ids:
            job = self.jobs.get(id)
            if job is not None:
                job.begun = True
                if job.link is not None:
                    job.link.begun(since, job.ticket)
        self._batcher.remove(claim.ids)

    def _done(self, now: float, done: pipe.Done) -> None:
        if done.seconds and done.ids:
            self.time.observe(len(done.ids), done.seconds)
        unclaimed = []
        for id, outcome in zip(done.ids, done.outcomes, strict=True):
            job = self.jobs.get(id)
            if job is not None:
                if not job.begun:
                    unclaimed.append(id)
                self._end(job, outcome)
        if unclaimed:  # could not be decoded: never claimed, and the child holds them no more
            self._batcher.remove(unclaimed)
            for id in unclaimed:
                self._costed.pop(id, None)
        if done.ids and self._running and done.ids[0] == self._running[0]:
            self._running = []
            self._expect_claim(now)

    def _end(self, job: Job, outcome: protocol.Slot) -> None:
        self._forget(job)
        if job.link is not None:
            job.link.done(job.ticket, outcome)

    def _forget(self, job: Job) -> None:
        del self.jobs[job.id]
        if job.link is not None:
            self._by_ticket.pop((id(job.link), job.ticket), None)

    # The model's process

    def _check_child(self, now: float) -> None:
        if self.child is ChildState.NONE:
            if now >= self._start_at and not self._draining and not self._exiting:
                self.child = ChildState.BOOTING
                self._child_since = now
                self._actions.append(StartChild())
        elif self.child is ChildState.BOOTING:
            if now >= self._child_since + self.config.boot_timeout:
                self._kill(f"did not start within {self.config.boot_timeout:g} s")
        elif self.child is ChildState.WARM and now >= self._hung_at():
            what, since = ("predict", self._running_since)
            if now < self._predict_hung_at():
                what, since = ("prepare", self._preparing_since)
            self._kill(f"was hung: one {what} took {now - since:.0f} s")

    def _kill(self, why: str) -> None:
        self.child = ChildState.KILLED
        self._actions.append(KillChild(why))

    def _hung_at(self) -> float:
        timeout = self.config.predict_timeout or MIN_PREDICT_TIMEOUT
        prepare = self._preparing_since + timeout if self._preparing else math.inf
        return min(prepare, self._predict_hung_at())

    def _predict_hung_at(self) -> float:
        if not self._running:
            return math.inf
        usual = PREDICT_TIMEOUT_FACTOR * self.time(len(self._running))
        timeout = self.config.predict_timeout or max(MIN_PREDICT_TIMEOUT, usual)
        return self._running_since + timeout

    def _check_exit(self) -> None:
        if not self._draining or self._exiting or self.jobs:
            return
        ready = [link for link in self.links if link.state is LinkState.READY]
        if all(link.drained and link.reported for link in ready):
            self._exiting = True
            self._actions.append(Exit(broken=False))

    def _exit_broken(self, text: str) -> None:
        self._exiting = True
        for link in self.links:
            if link.state is LinkState.READY:
                self._actions.extend(Send(link, frames) for frames in link.flush(math.inf, 0, 0, 0))
        self._actions.append(Exit(broken=True, text=text))


def _payload(link: WorkerLink, slot: protocol.Slot) -> bytes | errors.ZStreamerError:
    if type(slot) is bytes:
        return slot
    if type(slot) is int:
        came = link.receiver.take(slot)
        if isinstance(came, Parts):
            return came.join()
        if came is None:
            return errors.BadRequest(f"transfer {slot} is not known")
        return errors.TooLarge("the input exceeds this worker's max_payload")
    if slot is None or isinstance(slot, int | list):
        return errors.BadRequest("an item without payload")
    return bytes(memoryview(slot))  # type: ignore[arg-type]  # a received frame
