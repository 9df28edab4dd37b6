"""Attacks both ports of a broker over raw ZMTP until it is ended.

python -m tests.hostile.attacker CLIENTS_PORT WORKERS_PORT SEED
"""

import itertools
import random
import sys
import threading
import time

from tests.helpers import zmtp
from tests.helpers.wire import received
from tests.hostile import phrases
from zstreamer.wire import protocol
from zstreamer.wire.protocol import Role, WorkerState

MiB = 2**20
THREADS = 6
PAUSE = 0.0002
"""Seconds between two messages. What is sent faster than any reader can read is buffered by
libzmq, out of reach; the broker's memory guard is for that, and has a test of its own."""

RATE = 20 * MiB
"""Bytes a second of one attacker, for the same reason."""

LONGEST = 3.0
"""Seconds that one connection attacks."""


class Attack:
    """One hostile connection.

    Args:
        rng: decides everything.
        ports: of clients and of workers.
    """

    def __init__(self, rng, ports):
        self.rng = rng
        self.role = rng.choice([Role.CLIENT, Role.WORKER])
        self.peer = zmtp.Peer(ports[self.role - 1], timeout=2.0)
        self.end = time.monotonic() + rng.random() * LONGEST

    def run(self):
        """Attack in one way until the time is over or the connection is."""
        with self.peer:
            rng = self.rng
            ways = (self.floods, self.costs, self.leaves, self.frames, self.unending, self.talks)
            if rng.random() < 0.7:
                self.hello()
            rng.choice(ways)()

    def say(self, frames):
        """Send a message; raises TimeoutError where the broker reads no further."""
        data = zmtp.message(received(frames))
        self.peer.socket.sendall(data)
        time.sleep(PAUSE + len(data) / RATE)

    def hello(self):
        """Come in as a good peer would."""
        info = {"model": f"bad-{self.rng.randrange(50)}", "batch_size": 4, "pool": 0, "open": []}
        self.say(protocol.hello(protocol.Hello(self.role, self.rng.getrandbits(60), info)))

    def talks(self):
        """Say anything, good and bad, and read nothing."""
        some = phrases.client if self.role is Role.CLIENT else phrases.worker
        while time.monotonic() < self.end:
            frames = some(self.rng)
            if b"\xa7default" not in bytes(memoryview(frames[0])):  # that one is served
                self.say(frames)

    def floods(self):
        """Say one cheap thing again and again."""
        message = protocol.plain(
            self.rng.choice(
                [
                    protocol.Notice("m", []),
                    protocol.Status({}),
                    protocol.Ping(),
                    protocol.State(WorkerState.DRAINING, ""),
                    protocol.Ack(0),
                ]
            )
        )
        while time.monotonic() < self.end:
            self.say(message)

    def costs(self):
        """Say what costs much to read."""
        while time.monotonic() < self.end:
            self.say([self.rng.choice(phrases.COSTLY)])

    def leaves(self):
        """Leave behind as many words as possible, under many names."""
        for number in itertools.count():
            info = {"model": f"m{self.rng.randrange(10**6)}", "batch_size": 1, "pool": 0}
            info |= {"host": "h" * 200, "x": "x" * 10_000}
            id = self.rng.getrandbits(60)
            self.say(protocol.hello(protocol.Hello(self.role, id, info)))
            self.say(protocol.plain(protocol.State(WorkerState.BROKEN, "w" * 200_000)))
            if number > 20 or time.monotonic() > self.end:
                return

    def frames(self):
        """Send messages of very many frames."""
        many = zmtp.frame(b"", zmtp.MORE) * 50_000 + zmtp.frame(b"")
        for _ in range(3):
            self.peer.socket.sendall(many)
            time.sleep(0.1)

    def unending(self):
        """Begin a message, and go away amid it."""
        for _ in range(20):
            self.peer.socket.sendall(zmtp.frame(bytes(MiB), zmtp.MORE))
            time.sleep(0.05)


def attack(seed, ports):
    """One attack after another."""
    for number in itertools.count():
        try:
            Attack(random.Random(f"{seed} {number}"), ports).run()
        except OSError:
            time.sleep(0.01)  # cut off, as it should be


if __name__ == "__main__":
    clients, workers, seed = map(int, sys.argv[1:])
    for each in range(THREADS):
        threading.Thread(target=attack, args=(seed + each, (clients, workers)), daemon=True).start()
    threading.Event().wait()
