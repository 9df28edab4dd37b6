"""Messages to a broker, a client and a worker from peers that say anything.

An input is a row of messages: whom it is for and from which peer, how many frames, and each
behind its length.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.helpers.annotated import wrong_fields
from tests.helpers.wire import received
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.sessions import Side
from zstreamer.client.calls import Call
from zstreamer.client.core import ClientCore
from zstreamer.config import BrokerConfig, WorkerConfig
from zstreamer.wire import protocol
from zstreamer.wire.link import Connect, Send
from zstreamer.wire.protocol import ProtocolError
from zstreamer.worker.actions import StartChild
from zstreamer.worker.core import WorkerCore
from zstreamer.worker.pipe import Booted

NOW = 100.0

MOST = 32
"""Messages of one input that are heard."""

ROUNDS = 1000
"""Polls of one turn, beyond which a core does not come to rest."""

CLIENTS, WORKERS, CLIENT, WORKER = range(4)
"""Whom a message is for: either port of a broker, or one of its peers."""


def write(messages: list[tuple[int, int, list[bytes]]]) -> bytes:
    """Return an input of these messages: whom each is for, from which peer, and its frames."""
    parts = []
    for whom, peer, frames in messages:
        parts.append(bytes([whom | (peer & 3) << 2 | (len(frames) - 1 & 3) << 4]))
        parts += [len(frame).to_bytes(2, "big") + frame for frame in frames]
    return b"".join(parts)


def read(data: bytes) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield the messages of an input."""
    at = 0
    for _ in range(MOST):
        if at >= len(data):
            return
        first, at, frames = data[at], at + 1, []
        for _ in range((first >> 4 & 3) + 1):
            size = int.from_bytes(data[at : at + 2], "big")
            frames.append(data[at + 2 : at + 2 + size])
            at += 2 + size
        yield first & 3, first >> 2 & 3, frames


def check(data: bytes) -> None:
    """Have all cores hear the messages; what they send must be good, and nothing is raised."""
    broker, client = _Broker(), _Client()
    workers = [_Worker(costs=False), _Worker(costs=True)]
    for number, (whom, peer, frames) in enumerate(read(data)):
        now = NOW + 0.01 * number
        _decode(frames)
        if whom == CLIENTS:
            broker.hear(now, Side.CLIENT, b"c%d" % peer, frames)
        elif whom == WORKERS:
            broker.hear(now, Side.WORKER, b"w%d" % peer, frames)
        elif whom == CLIENT:
            client.hear(now, frames)
        else:
            workers[peer & 1].hear(now, frames)
    broker.look()


def _decode(frames: list[bytes]) -> None:
    """A message is as its class says, or it is none."""
    try:
        message = protocol.decode(frames)
    except ProtocolError:
        return
    assert not wrong_fields(message), message
    match message:
        case protocol.Submit(_, runs):
            for run in runs:
                assert len(run.ids) == len(run.budgets) == len(run.slots)
        case protocol.Answer(ids, slots):
            assert len(ids) == len(slots)
        case protocol.Work(_, tickets, budgets, slots):
            assert len(tickets) == len(budgets) == len(slots)
        case protocol.Report(_, done, slots):
            assert len(done) == len(slots)


class _Broker:
    """A broker with small limits."""

    def __init__(self) -> None:
        config = BrokerConfig(
            max_items=300, client_items=200, unread_bytes=20_000, max_payload=2500, model_grace=1
        )
        self.core = BrokerCore(config, 77, NOW - 10)
        self.now = NOW

    def hear(self, now: float, side: Side, session: bytes, frames: list[bytes]) -> None:
        """Hear one message as the driver does."""
        self.now = now
        if session in self.core.sessions.deaf(side):
            return
        hear = self.core.on_client if side is Side.CLIENT else self.core.on_worker
        hear(now, session, frames)  # type: ignore[arg-type]  # bytes are buffers
        for _ in range(ROUNDS):
            sends = self.core.poll(now)
            if not sends:
                break
            for send in sends:
                protocol.decode(received(send.frames))
        else:
            raise AssertionError("the broker does not come to rest")
        assert not self.core.troubles, self.core.troubles

    def look(self) -> None:
        """Its state is whole."""
        core = self.core
        core.snapshot(self.now)
        waiting = sum(model.waiting for model in core.models.values())
        assert core.scheduler.queued_items == waiting
        for model in core.models.values():
            assert model.out == sum(len(each.tickets) for each in model.workers.values())


class _Peer:
    """A client or a worker at one broker."""

    core: ClientCore | WorkerCore

    def boot(self, now: float) -> None:
        """Its model is to be loaded."""

    def hear(self, now: float, frames: list[bytes]) -> None:
        """Hear one message on its connection."""
        self.core.on_message(now, self.core.links[0], frames)  # type: ignore[arg-type]  # as above
        self._turn(now)

    def _turn(self, now: float) -> None:
        for _ in range(ROUNDS):
            actions = self.core.poll(now)
            if not actions:
                return
            for action in actions:
                if isinstance(action, Connect):
                    self.core.on_connected(now, action.link)  # type: ignore[arg-type]  # its own
                elif isinstance(action, Send):
                    protocol.decode(received(action.frames))
                elif isinstance(action, StartChild):
                    self.boot(now)
        raise AssertionError(f"{type(self).__name__} does not come to rest")


class _Client(_Peer):
    """A client that waits for an answer."""

    core: ClientCore

    def __init__(self) -> None:
        self.core = ClientCore(["tcp://broker"], 7, 5.0, NOW, lambda: 1.0)
        self.core.submit(Call([b"\x01", b"\x02"], "m", NOW + 5, NOW, 0, False, True))
        self._turn(NOW)

    def _turn(self, now: float) -> None:
        super()._turn(now)
        for call in self.core.completed():
            if isinstance(call, Call):
                assert len(call.outcomes) == 2


class _Worker(_Peer):
    """A worker whose model is warm, and never begins anything."""

    core: WorkerCore

    def __init__(self, costs: bool) -> None:
        self.costs = costs
        config = WorkerConfig("a:b", ("tcp://broker:1",), batch_size=4)
        self.core = WorkerCore(config, 7, NOW, lambda: 1.0)
        self._turn(NOW)

    def boot(self, now: float) -> None:
        """It is warm at once."""
        self.core.on_child(now, Booted(self.costs, ahead=True))
