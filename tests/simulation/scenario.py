"""One seed: a small cluster, a load, faults, and what must be true when all is over."""

import random
from dataclasses import dataclass, field

from tests.simulation.cluster import (
    SHADOW,
    History,
    Mute,
    SimBroker,
    SimClient,
    SimWorker,
    agent_config,
    broker_config,
)
from tests.simulation.world import World
from zstreamer import errors
from zstreamer.broker import operator
from zstreamer.broker.routes import Route
from zstreamer.broker.workers import SLOW
from zstreamer.worker.patience import MAX_PATIENCE

FAULTS_END = 5.0
"""Virtual seconds after which nothing breaks any more."""

HEAL = 9.0
"""Seconds after the last fault by which whatever could be mended is: two heartbeat timeouts,
a restart, back-offs, and the work that has piled up."""

MARKS = ((b"kill", 0.01), (b"bad", 0.03), (b"drop", 0.04), (b"fatal", 0.045), (b"hang", 0.047))
"""What becomes of a batch with such an item, see `SimChild`, and how likely a payload is one, as
a running sum."""

TOO_LITTLE_TIME = ("are ahead, more than the budget allows", "not enough time left")
"""What the broker and the client say where an item could only be answered too late."""

LARGE = 5_000_000
"""Bytes of the few payloads that travel in parts."""

NOBODY = "nobody's"
"""A model that no worker serves."""

LATE = 0.05
"""Seconds after its deadline by which a caller has its answer or its error."""


OVERLAPPING = 5
"""Of so many seeds one has models that begin a batch while the one before computes."""


@dataclass
class Outcome:
    """What a run came to."""

    seed: int
    calls: int = 0
    items: int = 0
    answered: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    gathered: bool = False
    problem: str = ""
    trace: list[str] = field(default_factory=list)


class Choices:
    """What a seed says of versions, from a generator of its own: without them seeds are as before.

    Attributes:
        versions: that workers announce; none where all are plain.
        shadow: whether a worker of a shadow runs copies.
    """

    def __init__(self, seed):
        self._random = random.Random(f"versions {seed}")
        self.versions = ["1", "2", None] if seed % 5 == 3 else []
        self.shadow = bool(self.versions) and self._random.random() < 0.5

    def version(self):
        return self._random.choice(self.versions) if self.versions else None

    def times(self, end):
        """When routes change."""
        count = self._random.choice((0, 0, 1, 3)) if self.versions else 0
        return [self._random.uniform(0.0, end) for _ in range(count)]

    def change(self):
        """What an operator says of a route."""
        versions = self._random.sample(("1", "2", ""), self._random.randint(1, 3))
        weights = {version: self._random.choice((1, 10, 90)) for version in versions}
        hold = {versions[0]: self._random.choice((1, 2, 9))}
        return self._random.choice(({"weights": weights}, {"hold": hold}, {"weights": None}))


class Returners:
    """Callers who ask again as soon as they are answered, so that several workers gather them.

    From a generator of their own, for the same reason.
    """

    SEEDS = 4
    """Of so many seeds one has them."""

    CALLS = 150
    """All their calls in a run: what they show they show early."""

    def __init__(self, seed):
        self._random = random.Random(f"returners {seed}")
        self.count = self._random.choice((4, 8, 16)) if seed % self.SEEDS == 2 else 0
        self.left = self.CALLS
        self.open = set()

    def begin(self, scenario):
        for _ in range(self.count):
            client = self._random.choice(scenario.clients)
            client.on_completed = lambda call, client=client: self._completed(
                scenario, client, call
            )
            scenario.world.after(self._random.random(), self._ask, scenario, client)

    def _ask(self, scenario, client):
        if client.alive and self.left and scenario.world.now < FAULTS_END:
            self.left -= 1
            scenario.number += 1
            payload = b"again%d" % scenario.number
            self.open.add(id(client.submit([payload], 25.0, model=scenario.models[0])))

    def _completed(self, scenario, client, call):
        if id(call) in self.open:
            self.open.discard(id(call))
            think = self._random.choice((0.0, 0.0005))
            scenario.world.after(think, self._ask, scenario, client)


class Scenario:
    """A seed's cluster and what happens to it."""

    def __init__(self, seed, trace=False):
        self.seed = seed
        self.world = World(seed, trace)
        self.random = self.world.random
        self.history = History()
        self.faults = []
        self.lost = set()  # brokers that do not come back
        self.choices = Choices(seed)
        self.returners = Returners(seed)
        random = self.random
        tight = random.random() < 0.15
        self.tight = tight
        self.window = random.choice((2, 8, 64, 4096))
        settings = {"window_items": self.window}
        if tight:
            settings |= {"max_items": random.choice((3, 10)), "client_items": random.choice((3, 8))}
        config = broker_config(**settings)
        names = [f"tcp://b{i}:1" for i in range(random.choice((1, 1, 1, 2, 3)))]
        routes = {"m": Route(shadow=SHADOW)} if self.choices.shadow else {}
        self.brokers = {name: SimBroker(self.world, name[6:8], config, routes) for name in names}
        self.batch = random.choice((1, 2, 4, 8))
        self.beta = random.choice((0.001, 0.01, 0.05, 0.4))
        self.max_latency = random.choice((0.0, 0.0, 0.02))
        if self.returners.count:
            self.max_latency = 0.1
        # A short one makes its broker soon miss what a silent worker does not report.
        self.predict_timeout = random.choice((None, 1.0))
        # Whether each worker is connected to some of the brokers only, and what they serve.
        self.apart = len(names) > 1 and random.random() < 0.6
        self.models = random.choice((["m"], ["m", "n"])) if self.apart else ["m"]
        count = random.randint(len(self.models), 3)
        if self.returners.count:
            count += len(self.models)
        self.workers = [self._worker(i, self.models[i % len(self.models)]) for i in range(count)]
        self._next_worker = len(self.workers)
        self.shadows = [self._worker(9, "m", SHADOW)] if self.choices.shadow else []
        self.clients = [
            SimClient(self.world, f"client{i}", self.brokers) for i in range(random.randint(1, 3))
        ]
        self.dead_clients = []
        self.cancelled = {}  # id of a call → when
        self.number = 0
        self._large = False

    def _worker(self, number, model, version=None):
        brokers = self.brokers
        if self.apart:
            there = [name for name, broker in brokers.items() if broker not in self.lost]
            names = self.random.sample(there, self.random.randint(1, len(there)))
            brokers = {name: brokers[name] for name in names}
        config = agent_config(
            brokers,
            model=model,
            version=version or self.choices.version(),
            batch_size=self.batch,
            max_latency=self.max_latency,
            boot_attempts=5,
            predict_timeout=self.predict_timeout,
        )
        alpha = self.random.choice((0.0005, 0.002))
        return SimWorker(
            self.world,
            f"worker{number}",
            brokers,
            config,
            History() if version == SHADOW else self.history,
            self.beta,
            alpha,
            overlaps=self.seed % OVERLAPPING == 3,
        )

    def run(self):
        """Run the seed; return what it came to, with the first problem found, if any."""
        outcome = Outcome(self.seed, faults=self.faults)
        try:
            self._plan_calls()
            self.returners.begin(self)
            self._plan_faults()
            self._plan_routes()
            end = max(
                (c.deadline for client in self.clients for c in client.submitted), default=0.0
            )
            self.world.run(FAULTS_END)
            end = max(
                (c.deadline for client in self.clients for c in client.submitted), default=0.0
            )
            # Stop early where all calls have ended: idle seconds show nothing.
            while self.world.now < end and not self._all_ended():
                self.world.run(min(end, self.world.now + 0.5))
            self.world.run(max(self.world.now, FAULTS_END + HEAL) + 4.0 + self._hung())
            while self.world.now < end + HEAL and self._copying():  # a shadow may be slower
                self.world.run(self.world.now + 0.5)
            self._check(outcome)
        except AssertionError as error:
            outcome.problem = (str(error) or repr(error)).replace("x" * 1000, "")
        except Exception as error:  # a core that raises is a finding like any other
            outcome.problem = f"{type(error).__name__}: {error}"
            if self.world.lines is not None:
                raise
        outcome.gathered = any(broker.gathered for broker in self.brokers.values())
        outcome.trace = self.world.lines or []
        return outcome

    def _all_ended(self):
        return all(
            id(call) in client.completed for client in self.clients for call in client.submitted
        )

    def _copying(self):
        """Whether a shadow still has copies; they end with the budgets of their items, or after."""
        if any(worker.child is not None and worker.child.running for worker in self.shadows):
            return True
        versions = [b.core.scheduler.versions for b in self.brokers.values() if b.alive]
        families = [family for each in versions for family in each._families.values()]
        return any(family.shadow is not None and family.shadow.items for family in families)

    # Load

    def _plan_calls(self):
        random = self.random
        for _ in range(random.randint(3, 16)):
            client = random.choice(self.clients)
            self.world.at(random.uniform(0.0, FAULTS_END), self._call, client)

    def _call(self, client):
        if not client.alive:
            return
        random = self.random
        timeout = random.choice((0.05, 0.5, 3.0, 25.0, 25.0, 25.0))
        once = random.random() < 0.2
        count = random.choice((1, 1, 1, 2, 5, 12, 70 if random.random() < 0.1 else 3))
        payloads = [self._payload() for _ in range(count)]
        priority = random.choice((0, 0, 0, 5))
        model = random.choice(self.models) if random.random() > 0.02 else NOBODY
        call = client.submit(payloads, timeout, model=model, once=once, priority=priority)
        if random.random() < 0.1:
            seconds = random.expovariate(5.0)
            self.cancelled[id(call)] = self.world.now + seconds
            self.world.after(seconds, self._cancel, client, call)

    def _cancel(self, client, call):
        if client.alive:
            client.cancel(call)

    def _payload(self):
        self.number += 1
        kind = self.random.random()
        mark = next((mark for mark, below in MARKS if kind < below), b"ok")
        large = b"x" * LARGE if self.random.random() < 0.004 else b""
        self._large = self._large or bool(large)
        return b"%s%d" % (mark, self.number) + large

    # Faults

    def _plan_faults(self):
        kinds = [
            self._kill_model,
            self._kill_agent,
            self._freeze_agent,
            self._stall_agent,
            self._drain_worker,
            self._kill_broker,
            self._freeze_broker,
            self._lose_broker,
            self._cut_client,
            self._cut_worker,
            self._block_wire,
            self._kill_client,
            self._drain_broker,
            self._break_model,
        ]
        if self.predict_timeout:  # else it is missed only after the run
            kinds += [self._silence_worker] * 2
        for _ in range(self.random.choice((0, 1, 1, 2, 3, 6))):
            at = self.random.uniform(0.0, FAULTS_END - 0.01)
            if self.random.random() < 0.5:  # faults in idle moments show little
                for client in self.clients:
                    self.world.at(at - 0.005 * self.random.random(), self._call, client)
            self.world.at(at, self.random.choice(kinds))

    def _plan_routes(self):
        """What an operator says of the versions, and takes back before all is to be well."""
        for model in self.models:
            for at in self.choices.times(FAULTS_END):
                self.world.at(at, self._change_route, model)
            if self.choices.versions:
                none = dict.fromkeys(("weights", "hold"))
                self.world.at(FAULTS_END, self._route, model, none)

    def _change_route(self, model):
        self._fault("route changed")
        self._route(model, self.choices.change())

    def _route(self, model, change):
        for broker in self.brokers.values():
            if broker.alive:
                self.world.note(broker.name, f"is told a route of {model}:", change)
                broker.receive(self._tell_route, broker, model, change)

    def _tell_route(self, broker, model, change):
        outcome = operator.act(broker.core, self.world.now, "route", model, change)
        assert outcome.status == 200, outcome.body

    def _living(self, processes):
        living = [p for p in processes if p.alive and not p.frozen]
        return self.random.choice(living) if living else None

    def _fault(self, name):
        self.faults.append(name)

    def _kill_model(self):
        worker = self._living(self.workers)
        if worker and worker.child:
            self._fault("model killed")
            worker.child.die("killed")

    def _kill_agent(self):
        if worker := self._living(self.workers):
            self._fault("agent killed")
            worker.crash()
            self.world.after(0.3, self._replace, worker)

    def _break_model(self):
        worker = self._living(self.workers)
        if worker and worker.child:
            self._fault("model broken")
            self.world.note(worker.name, "has a model that fails with FatalError from now on")
            worker.child.broken = True

    def _silence_worker(self):
        busy = [worker for worker in self.workers if worker.child and worker.child.running]
        if worker := self._living(busy or self.workers):
            self._fault("worker silent")
            self._lose_running(worker)
            worker.silence(self.random.choice((Mute.DONE, Mute.ALL)))
            self.world.after(self.random.choice((0.3, 2.0, 5.0)), worker.speak)

    def _drain_broker(self):
        """One of several, while the others are well and serve all models: nobody is to notice."""
        brokers = list(self.brokers.values())
        well = all(b.alive and not b.frozen and not b.core.draining for b in brokers)
        victim = self.random.choice(brokers)
        served = {
            worker.core.config.model
            for worker in self.workers
            if worker.alive and any(broker is not victim for broker in worker.brokers.values())
        }
        if well and served.issuperset(self.models):
            self._fault("broker drained")
            victim.drain(self.random.choice((0.3, 1.0, 3.0)))

    def _replace(self, worker):
        if worker in self.workers:
            self.workers.remove(worker)
            self._add_worker(worker.core.config.model)

    def _freeze_agent(self):
        if worker := self._living(self.workers):
            self._fault("agent frozen")
            self._lose_running(worker)
            worker.freeze(self.random.choice((0.3, 1.0, 2.5, 4.0)))

    def _lose_running(self, worker):
        for _, payload, _ in worker.child.running if worker.child else ():
            self.history.lost[payload] += 1

    def _stall_agent(self):
        if worker := self._living(self.workers):
            self._fault("agent stalled")
            worker.stall(self.random.choice((0.3, 2.5, 4.0)))

    def _drain_worker(self):
        worker = self._living(self.workers)
        if worker and not worker.core._draining:
            self._fault("worker drained")
            self.world.note(worker.name, "is asked to drain")
            worker.receive(worker.core.drain)
            self.world.after(1.0, self._add_worker, worker.core.config.model)

    def _add_worker(self, model):
        self.workers.append(self._worker(self._next_worker, model))
        self._next_worker += 1

    def _kill_broker(self):
        if broker := self._living(self.brokers.values()):
            self._fault("broker killed")
            for worker in self.workers:
                self._lose_running(worker)
            broker.crash(self.random.choice((0.2, 1.0, 3.0)))

    def _lose_broker(self):
        living = [broker for broker in self.brokers.values() if broker.alive]
        if len(living) > 1:
            self._fault("broker lost for good")
            for worker in self.workers:
                self._lose_running(worker)
            broker = self.random.choice(living)
            broker.crash(1e6)
            self.lost.add(broker)
            self.world.after(0.5, self._move_workers)

    def _move_workers(self):
        """Somebody starts those anew whose brokers do not come back."""
        for worker in [w for w in self.workers if self.lost.issuperset(w.brokers.values())]:
            if worker.alive:
                worker.crash()
            self._replace(worker)

    def _freeze_broker(self):
        if broker := self._living(self.brokers.values()):
            self._fault("broker frozen")
            seconds = self.random.choice((0.3, 1.0, 3.0))
            self.world.note(broker.name, f"is frozen for {seconds} s")
            broker.frozen = True
            if seconds > 2.0:
                for worker in self.workers:
                    self._lose_running(worker)
                for wire in list(broker.wires.values()):
                    self.world.after(2.0, wire.cut, 0.0)
            self.world.after(seconds, broker.resume)

    def _wire_of(self, peers):
        peer = self._living(peers)
        wires = [w for w in peer.wires.values() if w.up] if peer else []
        return (peer, self.random.choice(wires)) if wires else (None, None)

    def _cut_client(self):
        peer, wire = self._wire_of(self.clients)
        if wire:
            self._fault("client cut")
            self.world.note(peer.name, "loses its connection to", wire.broker.name)
            wire.cut(0.001)

    def _cut_worker(self):
        peer, wire = self._wire_of(self.workers)
        if wire:
            self._fault("worker cut")
            self._lose_running(peer)
            self.world.note(peer.name, "loses its connection to", wire.broker.name)
            wire.cut(0.001)

    def _block_wire(self):
        peer, wire = self._wire_of(self.clients + self.workers)
        if wire:
            self._fault("wire blocked")
            if peer in self.workers:
                self._lose_running(peer)
            seconds = self.random.choice((0.2, 1.5, 3.0))
            self.world.note(peer.name, f"has its wire to {wire.broker.name} blocked", seconds)
            wire.block(seconds)

    def _kill_client(self):
        if len(self.clients) > 1 and (client := self._living(self.clients)):
            self._fault("client killed")
            client.crash()
            self.clients.remove(client)
            self.dead_clients.append(client)

    # What must be true

    def _check(self, outcome):
        for client in self.clients:
            for call in client.submitted:
                outcome.calls += 1
                self._check_call(outcome, client, call)
        self._check_unwanted()
        self._check_tables()
        if not self.faults:
            for payload, versions in self.history.versions.items():
                died = self.history.died[payload]
                assert len(versions) == 1 or died, f"{payload!r} was begun on {versions}"

    def _check_unwanted(self):
        """What nobody waits for any more is not begun."""
        begun_at = self.history.begun_at
        for client in self.dead_clients:
            # Its broker keeps its items for the grace of 2 s, may see its end 2 s late where the
            # wire was blocked, and does not count the time for which it was frozen itself.
            frozen = 3.0 * self.faults.count("broker frozen")
            blocked = 2.0 * self.faults.count("wire blocked")
            # A worker that thaws begins what it finds before it hears that it was given up.
            thawed = 4.0 * self.faults.count("agent frozen")
            limit = client.crashed_at + 2.0 + 0.5 + blocked + frozen + thawed
            for payload in (p for call in client.submitted for p in call.token):
                late = begun_at.get(payload, 0.0) > limit
                assert not late, f"{payload!r} was begun long after its client had died"
        if self.faults or self._large:
            return
        for client in self.clients:
            for call in client.submitted:
                limit = self.cancelled.get(id(call), float("inf")) + 0.15
                for payload in call.token:
                    late = begun_at.get(payload, 0.0) > limit
                    assert not late, f"{payload!r} was begun after it was cancelled"

    def _check_call(self, outcome, client, call):
        ended = client.completed.get(id(call))
        assert ended is not None, f"call {call.token} never completed"
        assert ended <= call.deadline + LATE, f"call {call.token} completed late"
        results = self._results(call)
        for payload, result in zip(call.token, results, strict=True):
            outcome.items += 1
            if isinstance(result, errors.ZStreamerError):
                name = type(result).__name__
                outcome.errors[name] = outcome.errors.get(name, 0) + 1
                self._check_error(call, payload, result)
            else:
                outcome.answered += 1
                assert result == b"=" + payload, f"{payload!r} got the answer {result!r}"
            if call.once:
                assert self.history.begun[payload] <= 1, f"{payload!r} may run once, ran twice"

    def _results(self, call):
        if call.error is not None:
            return [call.error] * len(call.token)
        return [
            errors.from_wire(o) if isinstance(o, list) else o if isinstance(o, bytes) else o.join()
            for o in call.outcomes
        ]

    def _check_error(self, call, payload, error):
        """An error must have its reason."""
        history = self.history
        match error:
            case errors.PredictError():
                blamed = b"bad" in payload or b"drop" in payload or call.once
                assert blamed, f"{payload!r} is not bad: {error!r}"
            case errors.Cancelled():
                assert id(call) in self.cancelled, f"{payload!r} was not cancelled"
            case errors.Overloaded():
                budget = call.deadline - call.submitted
                if "shutting down" in error.message and not self.tight:
                    # A budget that ends on the way to another broker ends with this refusal.
                    if budget > 0.5:
                        self._check_not_only_drained(payload, error)
                    return
                early = any(words in error.message for words in TOO_LITTLE_TIME)
                short = early and budget < 5.0 + self._work() + self._hung()
                assert self.tight or short, f"{payload!r} refused without overload: {error!r}"
            case errors.WorkerLost() if not call.once:
                strikes = 2 * history.died_alone[payload] + history.lost[payload]
                assert strikes >= 4, f"{payload!r} was given up after {strikes} strikes: {error!r}"
            case errors.WorkerLost():
                lost = history.died or self._not_only_drained()
                assert lost, f"{payload!r} lost without a fault"
            case errors.DeadlineExceeded() | errors.NoWorker() | errors.BrokerUnreachable():
                if call.model == NOBODY:
                    long = call.deadline - call.submitted > 3.5
                    assert self.faults or not long, f"{payload!r} of no model got {error!r}"
                    return
                patient = call.deadline >= FAULTS_END + HEAL + self._work() + self._hung()
                unreachable = isinstance(error, errors.BrokerUnreachable) and self.faults
                assert not patient or unreachable or self.tight, (
                    f"{payload!r} had until {call.deadline:.1f} but got {error!r}"
                )
            case errors.ModelNotFound():
                # A broker that has run for 3 s and that no worker has found yet.
                if call.model != NOBODY:
                    self._check_not_only_drained(payload, error)
            case _:
                raise AssertionError(f"{payload!r} got {error!r}")

    def _not_only_drained(self):
        """Whether anything has happened but that one of several brokers was drained."""
        return bool(set(self.faults) - {"broker drained"})

    def _check_not_only_drained(self, payload, error):
        assert self._not_only_drained(), f"{payload!r} saw that a broker drained: {error!r}"

    def _hung(self):
        """Seconds that one worker may have lost to batches that hang, or to its own silence."""
        silent = (
            SLOW * 6 * (self.beta + 0.002 * self.batch) if "worker silent" in self.faults else 0
        )
        return self.history.hangs * (self.predict_timeout or MAX_PATIENCE) + silent

    def _work(self):
        """Seconds of all the items on one worker, in batches half as full as can be."""
        batch = max(1, min(self.batch, self.window) / 2)
        return self.number * (self.beta / batch + 0.002)

    def _check_tables(self):
        """Nothing is left anywhere."""
        for broker in (b for b in self.brokers.values() if b.alive):
            core = broker.core
            scheduler = core.scheduler
            assert not scheduler.queued_items, f"{scheduler.queued_items} items still queued"
            assert not scheduler.queued_bytes, f"{scheduler.queued_bytes} bytes still queued"
            living = {client.core.id for client in self.clients}
            for client in core.clients.values():
                assert not client.items, f"{broker.name} still holds {client.items}"
                assert not client.bytes, f"{broker.name} still counts {client.bytes} bytes"
                assert not client.unread, f"{broker.name} keeps {client.unread} unread bytes"
                assert client.id in living, f"{broker.name} remembers a dead client"
                assert not client.receiver.bytes, "parts are left over"
            for worker in core.workers.values():
                assert not worker.tickets, f"{broker.name} has tickets out: {worker.tickets}"
                assert not worker.running and not worker.bytes, "a worker's counts are off"
                assert not worker.receiver.bytes, "parts are left over"
            for model in core.models.values():
                assert not model.inquest and not model.waiting, "suspects are left over"
                assert not len(model.queue), "the queue counts items that are not there"
        for worker in self.workers + self.shadows:
            if worker.alive:
                backlog = worker.core.backlog
                assert not backlog.jobs, f"{worker.name} still has jobs"
                assert not backlog.leftovers, f"{worker.name} still has entries of what has ended"
                if worker.child and worker.child.alive:
                    assert not worker.child.held, f"{worker.name}'s model still holds items"
        for client in self.clients:
            core = client.core
            assert not core.open_calls and not core._lanes, "calls left over"
            assert not core._tours, "items on their way round are left over"
            assert not any(link.sent or link.sent_bytes for link in core.links), "items left over"
