"""Fuzzes a broker's core: whatever comes from whomever, nothing is raised and what leaves is good.

The peers here say nearly anything; they are heard as the driver hears them, and some come and go.
"""

import json
import random
import time

import msgpack

from tests.helpers.wire import received
from tests.hostile import phrases
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.sessions import Side
from zstreamer.config import BrokerConfig
from zstreamer.wire import protocol

LOOK = 5000
"""Messages between two looks at the whole state."""


class Fuzz:
    """One core and all who talk to it, from one seed.

    Attributes:
        messages: how many have been said.
    """

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.now = 100.0
        self.messages = 0
        config = BrokerConfig(
            max_items=300, client_items=200, unread_bytes=200_000, max_payload=2500, model_grace=1
        )
        self.core = BrokerCore(config, 77, self.now)
        self.tickets = {}
        self._names = 0
        self._new = set()
        self._peers = {side: [self._name() for _ in range(6)] for side in Side}

    def run(self, messages):
        """Say so many more."""
        end = self.messages + messages
        while self.messages < end:
            self.turn()
            if self.messages % LOOK < 10:
                self.look()
        self.look()

    def turn(self):
        """One turn of a broker's loop."""
        rng = self.rng
        self.now += rng.choice([0, 0.0001, 0.001, 0.02, 0.3])
        for _ in range(rng.randrange(1, 10)):
            side = rng.choice(list(Side))
            name = rng.choice(self._peers[side])
            if rng.random() < 0.002:
                self.core.on_gone(self.now, side, name)
            if name in self.core.sessions.deaf(side) or rng.random() < 0.001:
                self._peers[side].remove(name)
                self._new.discard(name)
                self._peers[side].append(self._name())
                continue
            self.messages += 1
            if name in self._new and rng.random() < 0.9:
                self._new.discard(name)
                role = protocol.Role.CLIENT if side is Side.CLIENT else protocol.Role.WORKER
                self._hear(side, name, phrases.hello(rng, role))
            elif side is Side.CLIENT:
                self._hear(side, name, phrases.client(rng))
            else:
                self._hear(side, name, phrases.worker(rng, self.tickets.get(name, ())))
        self._poll()

    def _hear(self, side, name, frames):
        hear = self.core.on_client if side is Side.CLIENT else self.core.on_worker
        hear(self.now, name, received(frames))

    def _poll(self):
        while sends := self.core.poll(self.now):
            for send in sends:
                message = protocol.decode(received(send.frames))
                if isinstance(message, protocol.Work):
                    known = self.tickets.setdefault(send.session, [])
                    known += message.tickets
                    del known[:-20]
        assert not self.core.troubles, self.core.troubles

    def look(self):
        """The state can be shown, and has not grown without bounds."""
        found = self.core.snapshot(self.now)
        msgpack.packb(found)
        json.dumps(found, allow_nan=False)
        assert self.core.scheduler.queued_items <= 3000  # those that have come back count, too
        assert self.core.scheduler.queued_items >= 0
        assert self.core.scheduler.queued_bytes >= 0
        if len(self.tickets) > 1000:
            self.tickets.clear()

    def _name(self):
        self._names += 1
        name = b"\0%d" % self._names
        self._new.add(name)
        return name


def run(messages, seed=0):
    """Fuzz with so many messages, from several seeds; return the seconds that it took."""
    begin = time.monotonic()
    per_seed = 100_000
    for number in range(-(-messages // per_seed)):
        fuzz = Fuzz(seed + number)
        try:
            fuzz.run(min(per_seed, messages - number * per_seed))
        except BaseException:
            print(f"seed {seed + number} after {fuzz.messages} messages")
            raise
    return time.monotonic() - begin
