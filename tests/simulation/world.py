"""Virtual time, and connections that delay, stall and break.

    process A ── send ──> wire ── after a delay, in order ──> process B's inbox ── turn

Nothing here sleeps: the world holds a heap of what happens when, and `run` takes the next.
All randomness comes from one generator, so a seed is a run.
"""

import heapq
import random
from collections import deque
from itertools import count

MAX_EVENTS = 200_000
"""Events of one `run`, some hundred times what a scenario needs."""


class World:
    """The clock, the heap of events, the generator and the trace."""

    def __init__(self, seed, trace=False):
        self.random = random.Random(seed)
        self.now = 0.0
        self.lines = [] if trace else None
        self._heap = []
        self._order = count()

    def at(self, time, action, *args):
        """Have something happen at a time, or now where that is past."""
        heapq.heappush(self._heap, (max(time, self.now), next(self._order), action, args))

    def after(self, seconds, action, *args):
        self.at(self.now + seconds, action, *args)

    def run(self, until):
        """Let everything happen up to a time."""
        heap = self._heap
        events = 0
        while heap and heap[0][0] <= until:
            self.now, _, action, args = heapq.heappop(heap)
            action(*args)
            events += 1
            assert events < MAX_EVENTS, "something goes on for ever without time passing"
        self.now = until

    def note(self, who, words, *details):
        """Write a line into the trace."""
        if self.lines is not None:
            said = " ".join(map(str, (words, *details))).replace("x" * 1000, "")
            self.lines.append(f"{self.now:9.4f}  {who:<10} {said}")


class Process:
    """Something with an inbox, whose loop turns when there is something to do.

    A frozen process does nothing, and its libzmq answers no heartbeats (SIGSTOP). A stalled one
    does nothing either, but its connections live (a predict that holds the GIL).
    """

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.alive = True
        self.frozen = False
        self.stalled = False
        self.inbox = deque()
        self._turn_at = None

    def receive(self, action, *args):
        """Something has arrived: look at it in the next turn."""
        self.inbox.append((action, args))
        self.wake(self.world.now + self.world.random.random() * 0.0002)

    def wake(self, at):
        """Turn at this time, or earlier where that is planned."""
        if self.alive and (self._turn_at is None or at < self._turn_at):
            self._turn_at = at
            self.world.at(at, self._turn, at)

    def _turn(self, planned):
        if self._turn_at != planned:
            return
        self._turn_at = None
        if not self.alive or self.frozen or self.stalled:
            return
        while self.inbox:
            action, args = self.inbox.popleft()
            action(*args)
        wake = self.turn()
        if self.alive and wake != float("inf"):
            self.wake(wake)

    def turn(self):
        """Have the core do its work; return when to come back."""
        raise NotImplementedError

    def resume(self):
        """Go on after a freeze or a stall."""
        self.frozen = self.stalled = False
        self._turn_at = None
        self.wake(self.world.now)


class Wire:
    """One connection between a peer and a broker: two ordered directions.

    HEARTBEAT seconds without the other side's libzmq end it for both, as ZMTP heartbeats do.
    """

    HEARTBEAT = 2.0
    sessions = count(1)

    def __init__(self, world, peer, broker, on_up, on_down, on_gone):
        self.world = world
        self.peer = peer
        self.broker = broker
        self.session = b"s%06d" % next(Wire.sessions)
        self.up = False
        self.dead = False
        self.blocked = False  # neither direction carries anything, yet nobody knows
        self._on_up, self._on_down, self._on_gone = on_up, on_down, on_gone
        self._held = []
        self._free_at = {True: 0.0, False: 0.0}
        self.delay = world.random.choice((0.0001, 0.0005, 0.002, 0.02))
        self.bandwidth = world.random.choice((1e9, 1e8, 2e7))
        world.after(2 * self.delay, self._establish)

    def _establish(self):
        if self.dead:
            return
        if not self.broker.alive or self.broker.frozen:
            self.cut(0.0)
            return
        self.up = True
        self.broker.accept(self)
        self.peer.receive(self._on_up)

    def send(self, to_broker, frames):
        """Send a message; False where this side knows that the connection is gone."""
        if self.dead or not self.up:
            return False
        size = sum(map(len, frames))
        start = max(self.world.now, self._free_at[to_broker])
        self._free_at[to_broker] = start + size / self.bandwidth
        arrival = self._free_at[to_broker] + self.delay
        self.world.at(arrival, self._arrive, to_broker, frames)
        return True

    def _arrive(self, to_broker, frames):
        if self.dead:
            return
        if self.blocked:
            self._held.append((to_broker, frames))
        elif to_broker:
            self.broker.deliver(self, frames)
        else:
            self.peer.deliver(self, frames)

    def block(self, seconds):
        """Carry nothing for a while; beyond the heartbeat timeout that ends the connection."""
        self.blocked = True
        if seconds > self.HEARTBEAT:
            self.world.after(self.HEARTBEAT, self.cut, 0.0)
        else:
            self.world.after(seconds, self._unblock)

    def _unblock(self):
        self.blocked = False
        held, self._held = self._held, []
        for to_broker, frames in held:
            self._arrive(to_broker, frames)

    def cut(self, notice):
        """End it: what is on the way is lost, and both sides hear of it after ``notice``."""
        if self.dead:
            return
        self.dead = True
        self.world.after(notice, self.peer.receive, self._on_down)
        if self.up:
            self.world.after(notice + 0.05, self.broker.receive, self._on_gone, self)
