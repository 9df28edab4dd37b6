"""A cluster of cores in one thread and in virtual time: no sockets, no processes, no clock.

    ClientCore ─┐  Send, Connect, Close            frames, after `latency`  ┌─ BrokerCore
    ClientCore ─┼──────────────────────> Cluster <──────────────────────────┤
    WorkerCore ─┘                           │                               └─ BrokerCore
        └─ Model (boots, claims, runs, dies) ┘

The cluster does what the drivers do: it moves frames, tells each core what has become of its
connections, and calls `poll` when `wake_at` says so. Everything is in one order that depends on
nothing but the calls made, so a run can be repeated exactly. A core that would keep its driver
spinning fails the test.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from zstreamer import codec
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.sessions import Outgoing, Side
from zstreamer.client.calls import Call, Watch
from zstreamer.client.core import ClientCore
from zstreamer.config import BrokerConfig, WorkerConfig
from zstreamer.model import PredictFunction
from zstreamer.wire import protocol
from zstreamer.wire.link import Close, Connect, Link, Send
from zstreamer.wire.protocol import Frames, Message
from zstreamer.worker import actions as workers
from zstreamer.worker import pipe
from zstreamer.worker.core import WorkerCore
from zstreamer.worker.runner import Runner, encode

Peer: TypeAlias = "Client | Worker"
M = TypeVar("M", bound=Message)
P = TypeVar("P", "Client", "Worker")

SPIN = 1000
"""Rounds at one moment of virtual time after which the cores are said to spin."""


class Seen(NamedTuple):
    """A message that left its sender at ``time`` (seconds)."""

    time: float
    sender: str
    receiver: str
    message: Message


class Connection:
    """One session of one peer at one broker."""

    def __init__(self, peer: Peer, link: Link[Any], broker: Broker, number: int) -> None:
        self.peer = peer
        self.link = link
        self.broker = broker
        self.side = Side.CLIENT if isinstance(peer, Client) else Side.WORKER
        self.session = number.to_bytes(5, "big")
        self.up = False


class Cluster:
    """Brokers, clients and workers, and the wire between them.

    Args:
        latency: seconds that each message and each end of a connection takes.

    Attributes:
        now: virtual seconds.
        seen: all messages that have left, oldest first.
    """

    def __init__(self, latency: float = 0.001) -> None:
        self.now = 1000.0
        self.latency = latency
        self.seen: list[Seen] = []
        self.brokers: dict[str, Broker] = {}
        self.peers: list[Peer] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    # Who is there

    def broker(self, name: str = "broker", **config: object) -> Broker:
        """Add a broker; ``config`` are fields of `BrokerConfig`."""
        broker = self.brokers[name] = Broker(self, name, BrokerConfig(**config))  # type: ignore[arg-type]
        return broker

    def client(self, *brokers: str, connect_timeout: float = 5.0) -> Client:
        """Add a client of these brokers."""
        return self._add(Client(self, brokers or ("broker",), connect_timeout))

    def worker(
        self,
        *brokers: str,
        predict: PredictFunction = list,
        beta: float = 0.010,
        alpha: float = 0.001,
        boot: float = 0.1,
        kills: Callable[[list[object]], bool] = lambda batch: False,
        cost: Callable[[object], float] | None = None,
        **config: object,
    ) -> Worker:
        """Add a worker of these brokers.

        Args:
            brokers: their names.
            predict: the model.
            beta, alpha: seconds of a batch of n items, beta + alpha·n.
            boot: seconds that the model takes to load.
            kills: whether a batch kills the model's process, half-way.
            cost: what an item costs to run.
            config: fields of `WorkerConfig`.
        """
        names = brokers or ("broker",)
        addresses = tuple(f"tcp://{name}:1" for name in names)
        settings = WorkerConfig(broker=addresses, **{"target": "a:b", **config})  # type: ignore[arg-type]
        model = Behaviour(predict, beta, alpha, boot, kills, cost)
        return self._add(Worker(self, settings, model))

    def _add(self, peer: P) -> P:
        self.peers.append(peer)
        return peer

    # What happens

    def run(self, seconds: float) -> None:
        """Let this much virtual time pass."""
        end = self.now + seconds
        while self._round(end):
            pass
        self.now = end

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Let time pass until ``condition`` holds; fail where it does not within ``seconds``."""
        end = self.now + seconds
        self._poll()
        while not condition():
            assert self._round(end), f"still not so after {seconds} s"

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Have something happen at a moment of virtual time."""
        self._serial += 1
        heapq.heappush(self._events, (time, self._serial, event))

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Have something happen after so much virtual time."""
        self.at(self.now + seconds, event)

    def _round(self, end: float) -> bool:
        """Go to the next moment at which anything happens; False where that is after ``end``."""
        rounds = 0
        while rounds < SPIN:
            self._poll()
            due = min((self._events[0][0] if self._events else math.inf), *self._wakes())
            if due > end:
                return False
            if due > self.now:
                self.now = due
                rounds = SPIN
            rounds += 1
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
        assert rounds > SPIN, f"somebody spins: {self._who_spins()}"
        self._poll()
        return True

    def _poll(self) -> None:
        for broker in self.brokers.values():
            broker.poll()
        for peer in list(self.peers):
            if not peer.frozen:
                peer.poll()

    def _wakes(self) -> Iterator[float]:
        yield math.inf
        for broker in self.brokers.values():
            if broker.running:
                yield broker.core.wake_at()
        for peer in self.peers:
            if not peer.frozen:
                yield peer.core.wake_at()

    def _who_spins(self) -> list[str]:
        return [peer.name for peer in self.peers if peer.core.wake_at() <= self.now]

    # The wire

    def connect(self, peer: Peer, link: Link[Any]) -> None:
        """Open a connection, as a driver does for a core."""
        broker = self.brokers.get(link.address.removeprefix("tcp://").removesuffix(":1"))
        self._serial += 1
        if broker is None or not broker.running:
            self.after(self.latency, lambda: peer.lost(link, None))
            return
        connection = Connection(peer, link, broker, self._serial)
        peer.connections[link.address] = connection
        self.after(self.latency, lambda: self._connected(connection))

    def _connected(self, connection: Connection) -> None:
        if connection.peer.connections.get(connection.link.address) is not connection:
            return
        if not connection.broker.running:
            connection.peer.lost(connection.link, connection)
        else:
            connection.up = True
            connection.broker.connections[connection.session] = connection
            connection.peer.core.on_connected(self.now, connection.link)  # type: ignore[arg-type]

    def cut(self, connection: Connection) -> None:
        """End a connection: what is on its way is lost, and both ends are told."""
        self.close(connection)
        connection.peer.lost(connection.link, connection)

    def close(self, connection: Connection) -> None:
        """End a connection from the peer's end; the broker is told."""
        was_up, connection.up = connection.up, False
        if was_up:
            self.after(self.latency, lambda: connection.broker.gone(connection))

    def to_broker(self, connection: Connection, frames: Frames) -> None:
        """Carry a message."""
        self._see(connection.peer.name, connection.broker.name, frames)

        def arrive() -> None:
            if connection.up:
                connection.broker.receive(connection, received(frames))

        self.after(self.latency, arrive)

    def to_peer(self, connection: Connection, frames: Frames) -> None:
        """Carry a message."""
        self._see(connection.broker.name, connection.peer.name, frames)

        def arrive() -> None:
            peer = connection.peer
            if connection.up and peer.frozen:
                peer.unread.append(arrive)
            elif connection.up:
                peer.core.on_message(self.now, connection.link, received(frames))  # type: ignore[arg-type]

        self.after(self.latency, arrive)

    def _see(self, sender: str, receiver: str, frames: Frames) -> None:
        self.seen.append(Seen(self.now, sender, receiver, protocol.decode(received(frames))))

    def messages(self, kind: type[M], sender: str = "", receiver: str = "") -> list[M]:
        """Return the messages of one kind that have left so far."""
        return [
            seen.message
            for seen in self.seen
            if isinstance(seen.message, kind)
            and seen.sender.startswith(sender)
            and seen.receiver.startswith(receiver)
        ]


class Broker:
    """A broker's process."""

    def __init__(self, cluster: Cluster, name: str, config: BrokerConfig) -> None:
        self.cluster = cluster
        self.name = name
        self.config = config
        self.epoch = 0
        self.running = False
        self.connections: dict[bytes, Connection] = {}
        self.start()

    def start(self) -> None:
        """Start, or start again with empty hands."""
        self.epoch += 1
        self.running = True
        self.core = BrokerCore(self.config, self.epoch, self.cluster.now)

    def kill(self) -> None:
        """End at once; all peers lose their connections."""
        self.running = False
        for connection in list(self.connections.values()):
            self.cluster.cut(connection)
        self.connections.clear()

    def receive(self, connection: Connection, frames: Frames) -> None:
        """A message has come."""
        if self.running:
            handle = {Side.CLIENT: self.core.on_client, Side.WORKER: self.core.on_worker}
            handle[connection.side](self.cluster.now, connection.session, frames)

    def gone(self, connection: Connection) -> None:
        """A peer has gone."""
        if self.connections.pop(connection.session, None) and self.running:
            self.core.on_gone(self.cluster.now, connection.side, connection.session)

    def poll(self) -> None:
        """Do what `broker.server` does once a turn."""
        while self.running and (sends := self.core.poll(self.cluster.now)):
            for send in sends:
                self._send(send)

    def _send(self, send: Outgoing) -> None:
        connection = self.connections.get(send.session)
        if connection is None or not connection.up:
            self.core.on_gone(self.cluster.now, send.side, send.session)
        else:
            self.cluster.to_peer(connection, send.frames)


class _Peer:
    """What clients and workers share.

    Attributes:
        frozen: it is stopped: its connections stand, but it neither reads nor does anything.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.connections: dict[str, Connection] = {}
        self.frozen = False
        self.unread: list[Callable[[], None]] = []

    @property
    def connection(self) -> Connection:
        """Its only connection."""
        (connection,) = self.connections.values()
        return connection

    def thaw(self) -> None:
        """Go on after having been frozen."""
        self.frozen = False
        unread, self.unread = self.unread, []
        for arrive in unread:
            arrive()

    def lost(self, link: Link[Any], connection: Connection | None) -> None:
        """A connection has gone, or could not be made."""
        if self.connections.get(link.address) is connection:
            self.connections.pop(link.address, None)
            self.core.on_lost(self.cluster.now, link)  # type: ignore[attr-defined]

    def _act(self, action: object) -> None:
        match action:
            case Connect(link):
                self.cluster.connect(self, link)  # type: ignore[arg-type]
            case Close(link):
                connection = self.connections.pop(link.address, None)
                if connection is not None:
                    self.cluster.close(connection)
            case Send(link, frames):
                connection = self.connections.get(link.address)
                if connection is not None and connection.up:
                    self.cluster.to_broker(connection, frames)


class Client(_Peer):
    """A program with a client in it."""

    def __init__(self, cluster: Cluster, brokers: Sequence[str], connect_timeout: float) -> None:
        number = 1 + sum(isinstance(peer, Client) for peer in cluster.peers)
        super().__init__(cluster, f"client {number}")
        self.core = ClientCore(brokers, number, connect_timeout, cluster.now, lambda: 0.5)
        self.ended: Counter[Call | Watch] = Counter()

    def call(
        self,
        *items: object,
        timeout: float = 20.0,
        model: str = "default",
        priority: int = 0,
        once: bool = False,
        keep_errors: bool = False,
    ) -> Call:
        """Submit a call of these items."""
        now = self.cluster.now
        payloads = codec.encode_all(items)
        call = Call(payloads, model, now + timeout, now, priority, once, keep_errors)
        self.core.submit(call)
        return call

    def watch(self, model: str = "default", timeout: float = 20.0) -> Watch:
        """Wait for a model."""
        now = self.cluster.now
        watch = Watch(model, now + timeout, now)
        self.core.watch(watch)
        return watch

    def poll(self) -> None:
        """Do what a driver does once a turn."""
        while actions := self.core.poll(self.cluster.now):
            for action in actions:
                self._act(action)
        self.ended.update(self.core.completed())


class Behaviour(NamedTuple):
    """How a model's process behaves; see `Cluster.worker`."""

    predict: PredictFunction
    beta: float
    alpha: float
    boot: float
    kills: Callable[[list[object]], bool]
    cost: Callable[[object], float] | None


class Worker(_Peer):
    """An agent's process, and the processes of its model one after another.

    Attributes:
        batches: the inputs of each batch that has begun, in this order.
        exit: why the agent has ended, if it has.
    """

    def __init__(self, cluster: Cluster, config: WorkerConfig, model: Behaviour) -> None:
        number = 1 + sum(isinstance(peer, Worker) for peer in cluster.peers)
        super().__init__(cluster, f"worker {number}")
        self.core = WorkerCore(config, number, cluster.now, lambda: 0.5)
        self.model = model
        self.process: ModelProcess | None = None
        self.batches: list[list[object]] = []
        self.exit: workers.Exit | None = None

    @property
    def ran(self) -> Counter[object]:
        """How often each input has begun to run here."""
        return Counter(value for batch in self.batches for value in batch)

    def poll(self) -> None:
        """Do what the agent's driver does once a turn."""
        while actions := self.core.poll(self.cluster.now):
            for action in actions:
                self._act(action)

    def kill(self) -> None:
        """End the agent and its model at once; what is on its way is lost."""
        self._end()
        self._hang_up()

    def _end(self) -> None:
        self.cluster.peers.remove(self)
        self.process = None

    def _hang_up(self) -> None:
        for connection in list(self.connections.values()):
            self.cluster.close(connection)

    def kill_model(self, how: str = "was killed by SIGKILL") -> None:
        """End the model's process at once."""
        self.process = None
        self.core.on_child_gone(self.cluster.now, how)

    def _act(self, action: object) -> None:
        match action:
            case workers.Tell(message):
                if self.process is not None:
                    self.process.tell(message)
            case workers.StartChild():
                self.process = ModelProcess(self)
            case workers.KillChild(why):
                self.kill_model(why)
            case workers.Exit():
                self.exit = action
                self._end()
                # The sockets linger: what was sent last still arrives.
                self.cluster.after(self.cluster.latency, self._hang_up)
            case _:
                super()._act(action)


class ModelProcess:
    """What `zstreamer.worker.child` does, in virtual time."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.held: dict[int, tuple[object, bool]] = {}
        self.plan: pipe.Plan | None = None
        self.busy = True
        self.runner = Runner(worker.model.predict)
        self._after(worker.model.boot, self._booted)

    def tell(self, message: pipe.PipeMessage) -> None:
        """The agent has written a message."""
        match message:
            case pipe.Items():
                self._hold(message)
            case pipe.Plan():
                self.plan = message if message.ids else None
                self._claim()
            case pipe.Drop():
                for id in message.ids:
                    self.held.pop(id, None)

    def _booted(self) -> None:
        self.busy = False
        self._say(pipe.Booted(self.worker.model.cost is not None))

    def _hold(self, message: pipe.Items) -> None:
        for id, payload in zip(message.ids, message.payloads, strict=True):
            self.held[id] = codec.decode(payload), message.once
        if self.worker.model.cost is not None:
            costs = [self.worker.model.cost(self.held[id][0]) for id in message.ids]
            self._say(pipe.Prepared(message.ids, costs))

    def _claim(self) -> None:
        if self.plan is None or self.busy:
            return
        plan, self.plan = self.plan, None
        ids = [id for id in plan.ids if id in self.held]
        held = [self.held.pop(id) for id in ids]
        values = [value for value, _ in held]
        self.busy = True
        self.worker.batches.append(values)
        self._say(pipe.Claim(plan.serial, ids))
        model = self.worker.model
        seconds = model.beta + model.alpha * len(ids)
        if model.kills(values):
            self._after(seconds / 2, self.worker.kill_model)
        else:
            outputs = self.runner.run(values, [once for _, once in held])
            done = pipe.Done(ids, encode(outputs), seconds if self.runner.clean else 0.0)
            self._after(seconds, lambda: self._done(done))

    def _done(self, done: pipe.Done) -> None:
        self.busy = False
        self._say(done)
        self._claim()

    def _say(self, message: pipe.PipeMessage) -> None:
        self._after(0.0, lambda: self.worker.core.on_child(self.worker.cluster.now, message))

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        def unless_dead() -> None:
            if self.worker.process is self:
                event()

        self.worker.cluster.after(seconds, unless_dead)


def received(frames: Frames) -> Frames:
    """Return a message as it comes out of a socket: its bytes, and nothing of its sender's."""
    return [bytes(memoryview(frame)) for frame in frames]  # type: ignore[arg-type]
