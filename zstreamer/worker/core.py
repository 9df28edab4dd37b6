"""The agent as a state machine: told the time and what happened, it returns what to do.

    on_connected, on_message, on_lost   what a broker's connection has done
    on_child, on_child_gone             what the model's process has said, and that it ended
    drain                               finish what is here, take nothing new, then exit
    poll                                → actions for the driver
    wake_at                             when poll must be called again although nothing happens

This file knows brokers and the life of the model's process; what becomes of items is in backlog.py.
No socket, process, clock, thread or random source in here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

from zstreamer.config import WorkerConfig, is_looked_up
from zstreamer.wire import protocol
from zstreamer.wire.link import LinkState, Peer
from zstreamer.wire.protocol import Frames, WorkerState
from zstreamer.worker import pipe
from zstreamer.worker.actions import Action, ChildAction, Exit, KillChild, StartChild, Tell
from zstreamer.worker.backlog import Backlog
from zstreamer.worker.link import WorkerLink
from zstreamer.worker.patience import MAX_PATIENCE

BEAT = 1.0
"""Seconds of silence after which a broker is told that this loop still turns."""

RESTART_BACKOFF = 0.1
MAX_RESTART_BACKOFF = 10.0
"""Seconds before a model's process is started again, doubling while it fails to boot."""

POOL = 4
"""Batches that a model with cost() has to choose from, besides the two of every window; one that
starts a batch while the one before computes has a third."""


class ChildState(Enum):
    """Where the model's process stands."""

    NONE = "none"
    BOOTING = "booting"
    WARM = "warm"
    KILLED = "killed"


class WorkerCore(Peer[WorkerLink, ChildAction]):
    """One worker: its brokers, its items and the state of its model's process.

    Args:
        config: what `zstreamer worker` was told.
        id: 63 random bits, new for each incarnation.
        now: monotonic seconds.
        jitter: returns numbers in [0, 1); spreads the attempts to connect of many workers.
        info: plain values that go into HELLO, for people who look at the broker.
        measure: returns what a broker that asks is told of this process and its model's.
    """

    def __init__(
        self,
        config: WorkerConfig,
        id: int,
        now: float,
        jitter: Callable[[], float],
        info: dict[str, object] | None = None,
        measure: Callable[[], dict[str, object]] = dict,
    ) -> None:
        self.config = config
        self._measure = measure
        links = [self._link(now, each) for each in config.broker if not is_looked_up(each)]
        super().__init__(protocol.Role.WORKER, id, links, jitter, info)
        self.state = WorkerState.BOOTING
        self.why = ""  # it is in this state, for people; kept until the next one
        self._last_words = ""  # of the child that runs now
        self.child = ChildState.NONE
        self.backlog = Backlog(config, now)
        self._booted = pipe.Booted(has_cost=False)
        self._child_since = now
        self._start_at = now
        self._failures = 0
        self._draining = False
        self._exiting = False

    def _patience(self) -> float:
        """Seconds that a broker should wait for a word on items before it takes them back.

        It is the last resort against a worker that does not notice itself that it is stuck.
        """
        return 2 * (self.config.predict_timeout or MAX_PATIENCE) + self.config.max_latency

    def on_lost(self, now: float, link: WorkerLink) -> None:
        """The connection is gone, or could not be made: its tickets are void."""
        if link.state is LinkState.DOWN:
            return
        super().on_lost(now, link)
        link.anew = False
        self.backlog.lost(link)

    # What the model's process has done

    def on_child(self, now: float, message: pipe.PipeMessage) -> None:
        """The child has said something."""
        match message:
            case pipe.Claim():
                self.backlog.claimed(now, message)
            case pipe.Done():
                self.backlog.done(now, message)
            case pipe.Preparing():
                self.backlog.preparing(now, message.ids)
            case pipe.Prepared():
                self.backlog.prepared(now, message)
            case pipe.Booted():
                self.child = ChildState.WARM
                self.backlog.running.ahead = message.ahead
                self._failures = 0
                if message != self._booted:
                    self._booted = message
                    self._greet_again(now)
                if not self._draining:
                    self._enter(WorkerState.WARM, "")
            case pipe.Failed():
                self._last_words = message.text
                if message.final:
                    self._failures = self.config.boot_attempts
            case _:
                pass

    def on_child_gone(self, now: float, how: str) -> None:
        """The child has ended; all that it wrote before has been passed to `on_child`."""
        booting = self.child is not ChildState.WARM and not self.backlog.busy
        words = self._last_words or f"the model's process {how}"
        self._last_words = ""
        self.child = ChildState.NONE
        self.backlog.model_gone(how)
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

    def on_pause(self, seconds: float) -> None:
        """The agent stood still, as where its machine is halted, and the model perhaps with it."""
        self.backlog.patience.pause(seconds)

    def drain(self) -> None:
        """Take nothing new, finish what is here, then exit."""
        self._draining = True
        self._enter(WorkerState.DRAINING, "the worker was asked to stop")

    # What to do

    def poll(self, now: float) -> list[Action]:
        """Do what is due and return what the driver must do now."""
        self._leave(now)
        for link in self.links:
            self._check(now, link)
        self._check_child(now)
        self._actions.extend(map(Tell, self.backlog.poll(now, self.child is ChildState.WARM)))
        held, time = len(self.backlog.jobs), self.backlog.time
        beta, alpha = int(time.beta * 1e6), int(time.alpha * 1e6)
        for link in self.links:
            if link.state is LinkState.READY:
                if now >= link.beat_at:
                    link.beat(held - link.jobs, beta, alpha)
                messages = link.flush(now, held - link.jobs, beta, alpha)
                if messages:
                    link.beat_at = now + BEAT
                self._send(link, messages)
        self._check_exit()
        return self._take_actions()

    def wake_at(self) -> float:
        """Return the monotonic seconds at which `poll` must be called at the latest."""
        wake = min(self.backlog.wake_at(), super().wake_at())
        if self.child is ChildState.NONE and not self._draining:
            wake = min(wake, self._start_at)
        elif self.child is ChildState.BOOTING:
            wake = min(wake, self._child_since + self.config.boot_timeout)
        elif self.child is ChildState.WARM:
            wake = min(wake, self.backlog.patience.until())
        return wake

    # Links

    def _link(self, now: float, address: str) -> WorkerLink:
        return WorkerLink(address, now, self.config.max_payload)

    def _may_leave(self, link: WorkerLink) -> bool:
        """Not while it answers: its clients may still wait there."""
        return link.state is not LinkState.READY

    def _wanted(self, _link: WorkerLink) -> bool:
        return not self._exiting

    def _greeting(self, _link: WorkerLink) -> dict[str, object]:
        booted, config = self._booted, self.config
        pool = POOL * config.batch_size if booted.has_cost else 0
        pool += config.batch_size if booted.ahead else 0
        info: dict[str, object] = {
            "model": config.model,
            "batch_size": config.batch_size,
            "pool": pool,
            "patience": self._patience(),
        }
        if config.max_latency:
            info["max_latency"] = config.max_latency
        if config.version:
            info["version"] = config.version
        if booted.inputs or booted.outputs:
            info |= {"inputs": booted.inputs, "outputs": booted.outputs}
        if booted.example:
            info["example"] = booted.example
        return info

    def _welcome(self, now: float, link: WorkerLink, _welcome: protocol.Welcome) -> None:
        link.anew = False
        link.beat_at = now + BEAT
        link.tell(protocol.State(self.state, self.why))

    def _message(
        self, now: float, link: WorkerLink, message: protocol.Message, _frames: Frames
    ) -> None:
        match message:
            case protocol.Work():
                warm = self._booted if self.child is ChildState.WARM else None
                self.backlog.take(now, link, message, warm)
            case protocol.Cancel():
                self.backlog.cancel(link, message.ids)
            case protocol.State():
                link.drained = True
            case protocol.Status():
                facts = {**self._measure(), **self.backlog.tally.facts(now)}
                link.tell(protocol.Status(facts))
            case _:
                pass  # PING, and whatever a later broker says that does not concern us

    def _greet_again(self, now: float) -> None:
        """HELLO knew too little of the model: say it again on a new connection."""
        for link in self.links:
            if link.state is not LinkState.DOWN:
                self._drop(now, link)
                link.retry_at = now
                link.anew = True

    def _enter(self, state: WorkerState, text: str) -> None:
        self.state = state
        self.why = text
        for link in self.links:
            if link.state is LinkState.READY:
                link.tell(protocol.State(state, text))

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
        elif self.child is ChildState.WARM and now >= self.backlog.patience.until():
            self._kill(self.backlog.patience.words(now))

    def _kill(self, why: str) -> None:
        self.child = ChildState.KILLED
        self._actions.append(KillChild(why))

    def _check_exit(self) -> None:
        if not self._draining or self._exiting or self.backlog.jobs:
            return
        ready = [link for link in self.links if link.state is LinkState.READY]
        if all(link.drained and link.reported for link in ready):
            self._exiting = True
            self._actions.append(Exit(broken=False))

    def _exit_broken(self, text: str) -> None:
        self._exiting = True
        for link in self.links:
            if link.state is LinkState.READY:
                self._send(link, link.flush(math.inf, 0, 0, 0))
        self._actions.append(Exit(broken=True, text=text))
