"""Clients that misbehave: one that never reads, one that dies with much in flight."""

import secrets
import time

import zmq

from tests.chaos.measure import Watch
from tests.chaos.stage import BATCH_TIME, Stage
from tests.helpers.waiting import until
from zstreamer import codec
from zstreamer.wire import protocol

KiB, MiB = 2**10, 2**20

ANSWER = 256 * KiB
UNREAD = 8 * MiB
"""Bytes of one answer, and of all that a client may leave unread."""

OPEN = 10_000
"""Items in flight of the client that dies."""


class SilentPeer:
    """A client that submits and never acknowledges, and may not even read from its socket."""

    def __init__(self, address, *, reads):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        if reads:
            self.socket.setsockopt(zmq.RCVHWM, 0)  # libzmq takes all, though nobody asks for it
        else:
            self.socket.setsockopt(zmq.RCVHWM, 1)
            self.socket.setsockopt(zmq.RCVBUF, 4 * KiB)
        self.socket.connect(address)
        self._next = 1
        hello = protocol.Hello(protocol.Role.CLIENT, secrets.randbits(63), {"open": []})
        self.socket.send_multipart(protocol.hello(hello))

    def submit(self, count, size):
        """Ask for so many answers of so many bytes."""
        ids = list(range(self._next, self._next + count))
        self._next += count
        run = protocol.Run("verbose", 0, 0, 0, ids, [20_000] * count, [codec.encode(size)] * count)
        self.socket.send_multipart(protocol.submit(0, [run], []))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def slow_reader(times, options):
    """Peers that ask for three times what they may leave unread, and read none of it."""
    with Stage("slow-reader", times, options, tcp=True, unread_bytes=UNREAD) as stage:
        [cluster] = stage.clusters
        stage.crew(1)
        stage.crew(1, target="Verbose", model="verbose", beta=0.001, alpha=0.001)
        outcome = stage.outcome
        with stage.load() as load, Watch(broker=cluster.broker.pid) as watch:
            load.more(20)
            others = cluster.status()["broker"]["clients"]
            for turn in range(times):
                with SilentPeer(cluster.address, reads=bool(turn % 2)) as peer:
                    before = stage.counts().get("resets", 0)
                    peer.submit(3 * UNREAD // ANSWER, ANSWER)
                    until(lambda before=before: stage.counts().get("resets", 0) > before)
                until(lambda: _forgotten(cluster, others))
            load.more(20)
            outcome.check_calls(load.stop())
        outcome.check_delay(1.0 + 2 * BATCH_TIME)
        outcome.figures["resets"] = stage.counts().get("resets", 0)
        grew = outcome.figures["broker_grew_mib"] = watch.peak("broker")
        # What it may leave unread, what was asked for beyond that until the reset, and as much
        # again in the buffers of libzmq and the kernel.
        cap = 6 * UNREAD / MiB
        outcome.check(grew <= cap, f"the broker grew by {grew:.0f} MiB, promised {cap:.0f}")
    return outcome


def _forgotten(cluster, others):
    """Whether only the load's clients are connected, and nothing of the other model is open."""
    status = cluster.status()
    return status["broker"]["clients"] <= others and not cluster.open_items("verbose")


def client_vanish(times, options):
    """A client is killed with 10,000 items in flight: what is queued of them leaves."""
    with Stage("client-vanish", times, options, tcp=True) as stage:
        [cluster] = stage.clusters
        stage.crew(2)
        outcome = stage.outcome
        longest = most = 0
        with stage.load() as load:
            for _ in range(times):
                load.more(20)
                flood = {"rate": OPEN, "most": OPEN, "timeout": 60.0}
                with stage.load(**flood) as victim:
                    until(lambda: cluster.open_items("default") > 3000)
                    most = max(most, cluster.open_items("default"))
                    victim.kill()
                    start = time.monotonic()
                    until(lambda: cluster.open_items("default") < 300)
                    longest = max(longest, time.monotonic() - start)
            load.more(20)
            outcome.check_calls(load.stop())
        outcome.figures["most_open_at_broker"] = most
        outcome.figures["gone_after"] = longest
        # The broker keeps a lost client's items for 2 s, should it come back.
        outcome.check(longest <= 3.5, f"the items stayed for {longest:.1f} s")
        # The others are served in turn with the one that dies, and what is left at the workers.
        outcome.check_delay(2.0)
    return outcome
