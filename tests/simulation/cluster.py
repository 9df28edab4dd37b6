"""Brokers, workers and clients of the simulation: the real cores with virtual sockets."""

import math
from collections import Counter
from enum import Enum
from itertools import count

from tests.simulation.world import Process, Wire
from zstreamer import errors, failure
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.sessions import Side
from zstreamer.client.calls import Call
from zstreamer.client.core import ClientCore
from zstreamer.config import AgentConfig, BrokerConfig
from zstreamer.wire import protocol
from zstreamer.wire.link import Close, Connect, Send
from zstreamer.wire.messages import Kind
from zstreamer.worker import actions, pipe
from zstreamer.worker.core import WorkerCore
from zstreamer.worker.flights import DEPTH
from zstreamer.worker.runner import ModelBroken, Runner

SHADOW = "shadow"
"""A version whose answers nobody is to get."""

PIPE = 0.0001
"""Seconds between an agent and its child."""


class History:
    """What really happened to each item, as no core can know it."""

    def __init__(self):
        self.begun = Counter()  # payload → how often a model began it
        self.begun_at = {}  # … when it last did
        self.died = Counter()  # … how often its process died while running it
        self.died_alone = Counter()
        self.lost = Counter()  # … how often its agent or link was lost while it ran
        self.versions = {}  # … of whom it was begun
        self.hangs = 0  # batches that would never have ended


class SimBroker(Process):
    """A broker's process."""

    def __init__(self, world, name, config, routes):
        super().__init__(world, name)
        self.config = config
        self.routes = routes  # of its file
        self.gathered = False  # whether it ever had a worker wait for more items
        self.wires = {}
        self._epochs = count(1)
        self._start()

    def _start(self):
        self.core = BrokerCore(self.config, next(self._epochs), self.world.now)
        self.core.scheduler.versions.agree(self.routes)
        self.wires.clear()
        self.inbox.clear()
        self._turn_at = None
        self.last_turn = self.world.now
        self.wake(self.world.now)

    def drain(self, seconds):
        """SIGTERM, and a new broker so many seconds after this one has ended."""
        self.world.note(self.name, "is asked to drain")
        self.core.drain()
        self._drained_at = self.world.now + 0.25
        self._away = seconds
        self.wake(self.world.now)

    def _exit(self):
        self.world.note(self.name, "has drained")
        self.alive = False
        for wire in list(self.wires.values()):
            self.world.after(0.1, wire.cut, 0.001)  # what was sent last still arrives: LINGER
        self.world.after(self._away, self._restart)

    def crash(self, seconds):
        """SIGKILL, and a new broker after so many seconds."""
        self.world.note(self.name, "crashes")
        self.alive = False
        for wire in list(self.wires.values()):
            wire.cut(0.001)
        self.world.after(seconds, self._restart)

    def _restart(self):
        if self.alive:
            return
        self.world.note(self.name, "is back")
        self.alive = True
        self._start()

    def accept(self, wire):
        self.wires[wire.session] = wire

    def deliver(self, wire, frames):
        self.receive(self._message, wire, frames)

    def _message(self, wire, frames):
        if wire.session not in self.wires:
            return
        self._discount_pause()
        handle = self.core.on_worker if wire.side is Side.WORKER else self.core.on_client
        handle(self.world.now, wire.session, frames)

    def gone(self, wire):
        if self.wires.pop(wire.session, None):
            self._discount_pause()
            self.core.on_gone(self.world.now, wire.side, wire.session)

    def _discount_pause(self):
        """As the server does before it reads what has come meanwhile."""
        now = self.world.now
        if now - self.last_turn > 0.5:
            self.core.on_pause(now - self.last_turn)
        self.last_turn = now

    def turn(self):
        now = self.world.now
        self._discount_pause()
        rounds = 0
        while sends := self.core.poll(now):
            rounds += 1
            assert rounds < 1000, "the broker's loop does not come to rest"
            for side, session, frames in sends:
                wire = self.wires.get(session)
                if wire is None or not wire.send(False, frames):
                    self.wires.pop(session, None)
                    self.core.on_gone(now, side, session)
        self.check()
        if self.core.draining and self.core.idle and now >= self._drained_at:
            self._exit()
        return self.core.wake_at()

    def check(self):
        """What must hold after every turn."""
        for worker in self.core.workers.values():
            assert len(worker.tickets) <= worker.window_items, "a worker's window is exceeded"
            assert worker.running <= worker.tickets.keys(), "what it does not hold has begun"
            self.gathered |= worker.gathers
        for model in self.core.models.values():
            assert len(model.inquest) <= max(
                1, *(w.batch_size for w in model.workers.values()), 1
            ), "more than one group of suspects is out"
            workers = model.workers.values()
            out = sum(len(worker.tickets) for worker in workers)
            assert model.out == out, f"items at workers counted {model.out}, are {out}"
            open_workers = {worker for worker in workers if worker.open}
            assert model.open.keys() == open_workers, "the wrong workers are given items"
        queued = sum(model.waiting for model in self.core.models.values())
        assert self.core.scheduler.queued_items == queued, "queued items are miscounted"


class Peer(Process):
    """What clients and workers share: connections to brokers."""

    side = Side.CLIENT

    def __init__(self, world, name, brokers):
        super().__init__(world, name)
        self.brokers = brokers
        self.wires = {}

    def connect(self, link):
        broker = self.brokers[link.address]
        wire = Wire(
            self.world,
            self,
            broker,
            lambda: self._up(link, wire),
            lambda: self._down(link, wire),
            broker.gone,
        )
        wire.side = self.side
        self.wires[link] = wire

    def _up(self, link, wire):
        if self.wires.get(link) is wire:
            self.core.on_connected(self.world.now, link)

    def _down(self, link, wire):
        if self.wires.get(link) is wire:
            del self.wires[link]
            self.core.on_lost(self.world.now, link)

    def deliver(self, wire, frames):
        self.receive(self._message, wire, frames)

    def _message(self, wire, frames):
        for link, current in list(self.wires.items()):
            if current is wire:
                self.core.on_message(self.world.now, link, frames)

    def send(self, link, frames):
        wire = self.wires.get(link)
        if wire is not None and not wire.send(True, frames):
            del self.wires[link]
            self.core.on_lost(self.world.now, link)

    def close(self, link):
        wire = self.wires.pop(link, None)
        if wire is not None:
            wire.cut(0.0)

    def freeze(self, seconds):
        """SIGSTOP for a while: beyond the heartbeat timeout the connections end."""
        self.world.note(self.name, f"is frozen for {seconds:.2f} s")
        self.frozen = True
        if seconds > Wire.HEARTBEAT:
            for wire in list(self.wires.values()):
                self.world.after(Wire.HEARTBEAT, wire.cut, 0.0)
        self.world.after(seconds, self.resume)

    def stall(self, seconds):
        """The Python loop stands still while libzmq answers for it."""
        self.world.note(self.name, f"stalls for {seconds:.2f} s")
        self.stalled = True
        self.world.after(seconds, self.resume)


class Mute(Enum):
    """What a worker that goes on to say PING keeps to itself."""

    NOT = "nothing"
    DONE = "outcomes"
    ALL = "begins and outcomes"


class SimChild:
    """A model's process: holds items, claims plans, and runs batches by the runner's rules.

    What an item says becomes of its batch: "kill" ends the process, "hang" never ends, "fatal" is
    a device that is lost, "bad" an exception, and "drop" an output that is forgotten.

    One that overlaps begins a batch that may be claimed ahead while the one before computes.
    """

    def __init__(self, agent, boot, history):
        self.agent = agent
        self.world = agent.world
        self.history = history
        self.alive = True
        self.warm = False
        self.held = {}
        self.plan = []
        self.serial = 0
        self.overlaps = agent.overlaps
        self.flights = []
        self.free_at = 0.0
        self.broken = False  # as a model whose CUDA context is: its next batch ends the process
        self.runner = Runner(self._predict)
        self._runs = 0
        self.world.after(boot, self._booted)

    def _booted(self):
        if self.alive:
            self.warm = True
            self.say(pipe.Booted(False, ahead=self.overlaps))

    @property
    def running(self):
        """What has begun and not ended, in all batches."""
        return [item for batch in self.flights for item in batch]

    def say(self, message):
        self.world.after(PIPE, self.agent.from_child, self, message)

    def take(self, message):
        """The agent has written something."""
        if not self.alive:
            return
        match message:
            case pipe.Items():
                for id, payload in zip(message.ids, message.payloads, strict=True):
                    self.held[id] = payload, message.once
            case pipe.Plan():
                self.serial, self.plan, self.ahead = message
            case pipe.Drop():
                for id in message.ids:
                    self.held.pop(id, None)
        self._claim()

    def _claim(self):
        if not self.alive or not self.warm or not self.plan:
            return
        if self.flights and not (self.overlaps and self.ahead and len(self.flights) < DEPTH):
            return
        ids = [id for id in self.plan if id in self.held]
        self.plan = []
        batch = [(id, *self.held.pop(id)) for id in ids]
        self.say(pipe.Claim(self.serial, ids))
        if batch:
            self.flights.append(batch)
        for _, payload, _ in batch:
            self.history.lost[payload] += self.agent.mute is not Mute.NOT
            self.history.begun[payload] += 1
            version = self.agent.core.config.version
            self.history.versions.setdefault(payload, set()).add(version)
            self.history.begun_at[payload] = self.world.now
        seconds = self.agent.beta + self.agent.alpha * len(batch)
        # Its device does one thing after the other, and nothing behind one that hangs.
        start = max(self.world.now, self.free_at)
        self.free_at = start + seconds if batch else self.free_at
        delay = start - self.world.now
        if any(b"hang" in payload for _, payload, _ in batch):
            self.history.hangs += 1
            self.free_at = math.inf
        elif delay == math.inf:
            return
        elif any(b"kill" in payload for _, payload, _ in batch):
            self.world.after(delay + seconds * self.world.random.random(), self.die, "poison")
        else:
            self.world.after(delay + seconds, self._finish, batch, seconds)

    def _finish(self, batch, seconds):
        if not self.alive or (batch and not any(each is batch for each in self.flights)):
            return
        self._runs = 0
        try:
            outputs = self.runner.run([p for _, p, _ in batch], [once for *_, once in batch])
        except ModelBroken as error:
            self.say(pipe.Failed(str(error)))
            self.die("broken")
            return
        self.flights = [each for each in self.flights if each is not batch]
        outcomes = [
            errors.to_wire(failure.returned(o)) if isinstance(o, Exception) else o for o in outputs
        ]
        clean = seconds if self.runner.clean else 0.0
        self.say(pipe.Done([id for id, *_ in batch], outcomes, clean))
        self._claim()

    def _predict(self, batch):
        self._runs += 1
        if self._runs > 1:
            self.history.begun.update(batch)
        if self.broken or any(b"fatal" in payload for payload in batch):
            raise errors.FatalError("the device is lost")
        if any(b"bad" in payload for payload in batch):
            raise ValueError("bad item")
        mark = b"=" if self.agent.core.config.version != SHADOW else b"no answer to "
        return [mark + payload for payload in batch if b"drop" not in payload]

    def die(self, why):
        """End, as by SIGKILL; what was written before is still read."""
        if not self.alive:
            return
        self.alive = False
        self.world.note(
            self.agent.name, f"model dies ({why}) running", [p for _, p, _ in self.running]
        )
        for _, payload, _ in self.running:
            self.history.died[payload] += 1
            if len(self.running) == 1:
                self.history.died_alone[payload] += 1
        self.world.after(PIPE, self.agent.child_gone, self, why)


class SimWorker(Peer):
    """A worker's agent, and its child."""

    side = Side.WORKER

    def __init__(self, world, name, brokers, config, history, beta, alpha, overlaps=False):
        super().__init__(world, name, brokers)
        self.history = history
        self.beta, self.alpha = beta, alpha
        self.child = None
        self.overlaps = overlaps
        self.exited = False
        self.mute = Mute.NOT
        self.core = WorkerCore(config, world.random.getrandbits(63), world.now, world.random.random)
        self.boot = world.random.uniform(0.05, 0.3)
        self.wake(world.now)

    def crash(self):
        """SIGKILL of the agent; its child ends with it."""
        self.world.note(self.name, "agent crashes")
        self.alive = False
        if self.child is not None:
            for _, payload, _ in self.child.running:
                self.history.lost[payload] += 1
            self.child.alive = False
        for wire in list(self.wires.values()):
            wire.cut(0.001)

    def silence(self, how):
        """It says PING and no outcome from now on; with ``Mute.ALL`` not what begins either."""
        self.world.note(self.name, "falls silent but for PING:", how.value)
        self.mute = how

    def speak(self):
        """Report again; what it kept to itself is lost."""
        self.world.note(self.name, "reports again")
        self.mute = Mute.NOT

    def send(self, link, frames):
        if self.mute is not Mute.NOT and frames[0][1] == Kind.REPORT:
            report = protocol.decode(frames)
            if self.mute is Mute.ALL or not report.begun:
                return
            frames = protocol.report(report._replace(done=[], slots=[]), [])
        super().send(link, frames)

    def from_child(self, child, message):
        self.receive(self._from_child, child, message)

    def _from_child(self, child, message):
        if child is self.child:
            self.core.on_child(self.world.now, message)

    def child_gone(self, child, why):
        self.receive(self._child_gone, child, why)

    def _child_gone(self, child, why):
        if child is self.child:
            self.child = None
            self.core.on_child_gone(self.world.now, why)

    def turn(self):
        now = self.world.now
        rounds = 0
        while todo := self.core.poll(now):
            rounds += 1
            assert rounds < 1000, "the agent's loop does not come to rest"
            for action in todo:
                self._act(action)
        window = (3 if self.overlaps else 2) * self.core.config.batch_size
        for link in self.core.links:
            held = sum(job.link is link for job in self.core.backlog.jobs.values())
            assert held == link.jobs, f"link counts {link.jobs} jobs, holds {held}"
            assert held <= window, "an agent holds more than its window"
        return self.core.wake_at()

    def _act(self, action):
        match action:
            case Send(link, frames):
                self.send(link, frames)
            case actions.Tell(message):
                if self.child is not None:
                    self.world.after(PIPE, self.child.take, message)
            case Connect(link):
                self.connect(link)
            case Close(link):
                self.close(link)
            case actions.StartChild():
                self.child = SimChild(self, self.boot, self.history)
            case actions.KillChild(why):
                if self.child is not None:
                    self.child.die(why)
            case actions.Exit():
                self.world.note(self.name, "exits")
                self.exited = True
                self.alive = False
                if self.child is not None:
                    self.child.alive = False
                for wire in list(self.wires.values()):
                    # What was sent before still arrives: LINGER.
                    self.world.after(0.5, wire.cut, 0.001)


class SimClient(Peer):
    """A client's process, and what its calls came to."""

    def __init__(self, world, name, brokers, tenant=""):
        super().__init__(world, name, brokers)
        self.core = ClientCore(
            list(brokers),
            world.random.getrandbits(63),
            5.0,
            world.now,
            world.random.random,
            {"tenant": tenant} if tenant else None,
        )
        self.submitted = []
        self.crashed_at = float("inf")
        self.completed = {}
        self.on_completed = lambda _call: None

    def submit(self, payloads, timeout, *, model="m", once=False, priority=0):
        """Make a call; its outcomes are kept item by item."""
        now = self.world.now
        call = Call(list(payloads), model, now + timeout, now, priority, once, True)
        call.token = tuple(payloads)
        self.submitted.append(call)
        self.world.note(self.name, f"calls {model} timeout={timeout:.2f} once={once}", *payloads)
        self.receive(self.core.submit, call)
        return call

    def cancel(self, call):
        self.world.note(self.name, "cancels", *call.token)
        self.receive(self.core.cancel, call)

    def crash(self):
        """SIGKILL."""
        self.world.note(self.name, "crashes")
        self.crashed_at = self.world.now
        self.alive = False
        for wire in list(self.wires.values()):
            wire.cut(0.001)

    def turn(self):
        again = True
        rounds = 0
        while again:
            again = False
            rounds += 1
            assert rounds < 1000, "the client's loop does not come to rest"
            for action in self.core.poll(self.world.now):
                again = True
                match action:
                    case Send(link, frames):
                        self.send(link, frames)
                    case Connect(link):
                        self.connect(link)
                    case Close(link):
                        self.close(link)
            for call in self.core.completed():
                again = True
                assert id(call) not in self.completed, "a call completed twice"
                self.completed[id(call)] = self.world.now
                words = repr(call.error) if call.error else call.outcomes
                self.world.note(self.name, "completed", *call.token, "→", words)
                self.on_completed(call)
        for link in self.core.links:
            assert len(link.sent) <= max(1, link.window_items), "a client's window is exceeded"
        return self.core.wake_at()


def broker_config(**settings):
    """A broker's configuration without its files and ports."""
    return BrokerConfig(http_port=0, **settings)


def agent_config(addresses, **settings):
    """An agent's configuration for these brokers."""
    return AgentConfig(target="m:m", broker=tuple(addresses), **settings)
