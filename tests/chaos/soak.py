"""All faults at random for a long time; nothing that lives through it may grow."""

import contextlib
import os
import random
import signal
import time

from tests.chaos.clients import ANSWER, OPEN, UNREAD, SilentPeer
from tests.chaos.deaths import FREEZE
from tests.chaos.measure import Watch, usage
from tests.chaos.relay import Relay
from tests.chaos.stage import Stage
from tests.helpers.waiting import until

SECONDS, QUICK_SECONDS = 1200.0, 3.0
LONG = 300.0
"""Seconds from which on memory counts: allocators and caches grow for a while in any program."""

GROWTH = 4.0
"""MiB by which the last third's median may exceed the second third's."""


class Faults:
    """What may happen, one method each. Brokers: one lives through it, one dies at times.

    Workers: the first keeps its agent, the second one's is killed, the third is replaced.
    """

    def __init__(self, stage, crew, links, clients):
        self.stage = stage
        self.crew = crew
        self.links = links
        self.clients = clients

    def kill_child(self):
        self.crew[0].kill("child")

    def kill_agent(self):
        self.crew[1].kill("agent")

    def freeze_agent(self):
        victim = random.choice(self.crew[:2])
        with victim.frozen():
            time.sleep(random.choice((0.5, FREEZE)))
        victim.wait_warm()

    def replace_worker(self):
        victim = self.crew[2]
        before = len(victim.starts)
        victim.supervisor.terminate()
        assert victim.supervisor.wait(40) == 0, "a worker did not drain"
        victim.start()
        victim.wait_warm(before)

    def freeze_link(self):
        with self.links.stalled():
            time.sleep(random.choice((0.5, FREEZE)))
        self.stage.wait_warm()

    def reset_link(self):
        self.links.reset(midway=random.random() < 0.5)
        time.sleep(0.5)
        self.stage.wait_warm()

    def cut_clients(self):
        for _ in range(5):
            self.clients.reset(midway=random.random() < 0.5)
            time.sleep(0.2)

    def freeze_clients(self):
        with self.clients.stalled():
            time.sleep(random.choice((0.5, FREEZE)))

    def kill_broker(self):
        victim = self.stage.clusters[1]
        victim.broker.kill()
        victim.broker.wait(5)
        time.sleep(random.choice((0.0, 1.0)))
        victim.start_broker()
        victim.wait_up()
        self.stage.wait_warm()

    def freeze_broker(self):
        pid = self.stage.clusters[1].broker.pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(random.choice((0.5, FREEZE)))
        os.kill(pid, signal.SIGCONT)
        self.stage.wait_warm()

    def lose_client(self):
        flood = {"rate": OPEN, "most": OPEN, "timeout": 60.0}
        with self.stage.load(**flood) as victim:
            time.sleep(0.5)
            victim.kill()

    def silent_peer(self):
        with SilentPeer(self.stage.clusters[0].address, reads=random.random() < 0.5) as peer:
            peer.submit(2 * UNREAD // ANSWER, ANSWER)
            time.sleep(1.0)

    def one(self):
        """Let one of them happen; returns its name."""
        names = [name for name in vars(Faults) if not name.startswith("_") and name != "one"]
        name = random.choice(names)
        getattr(self, name)()
        return name


def soak(times, options):
    """Faults until the time is over; ``times`` is their least number."""
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    settings = {"tcp": True, "brokers": 2, "unread_bytes": UNREAD}
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(Stage("soak", times, options, **settings))
        first, second = stage.clusters
        links = stack.enter_context(Relay(first.worker_address))
        clients = stack.enter_context(Relay(first.address))
        crew = [stage.worker(broker=(links.address, second.worker_address)) for _ in range(3)]
        stage.worker("Verbose", model="verbose", beta=0.001, alpha=0.001)
        stage.wait_warm()
        address = f"{clients.address},{second.address}"
        threads, greens = (stage.load(address, threads=8, gevent=green) for green in (False, True))
        for load in (threads, greens):  # both programs start meanwhile
            stack.enter_context(load)
        lives = {
            "broker": first.broker.pid,
            "agent": crew[0].agent,
            "supervisor": crew[1].supervisor.pid,
            "callers": threads.pid,
            "greenlets": greens.pid,
        }
        faults = Faults(stage, crew, links, clients)
        outcome = stage.outcome
        threads.more(50)
        greens.more(50)
        _settle(stage)
        calm = {name: usage(pid) for name, pid in lives.items()}
        happened = 0
        end = time.monotonic() + seconds
        with Watch(pause=1.0, **lives) as watch:
            while time.monotonic() < end or happened < times:
                faults.one()
                happened += 1
                threads.more(10)
                greens.more(10)
            _settle(stage)
            for name, pid in lives.items():
                _compare(outcome, name, calm[name], usage(pid))
        outcome.times = happened
        outcome.check_calls(threads.stop(), greens.stop())
        _check_tables(outcome, stage)
        for name in lives:
            grew = outcome.figures[f"{name}_mib"] = watch.growth(name)
            if seconds >= LONG:
                outcome.check(grew <= GROWTH, f"{name} grew by {grew:.1f} MiB")
    return outcome


def _settle(stage):
    """Wait until only the load is connected, and everyone is warm."""
    stage.wait_warm()
    until(lambda: all(c.status()["broker"]["clients"] <= 2 for c in stage.clusters), 30)
    time.sleep(1.0)


def _compare(outcome, name, before, after):
    more = after.descriptors - before.descriptors
    outcome.figures[f"{name}_fds"] = more
    outcome.check(more <= 2, f"{name} has {more} descriptors more than at the start")
    more = after.threads - before.threads
    outcome.check(more <= 1, f"{name} has {more} threads more than at the start")


def _check_tables(outcome, stage):
    """After the last answer nothing is left in the brokers, nor at the workers."""

    def left():
        statuses = [cluster.status() for cluster in stage.clusters]
        rows = [
            {name: worker[name] for name in ("pid", "state", "waiting", "running")}
            for status in statuses
            for model in status["models"].values()
            for worker in model["workers"]
            if worker["waiting"] or worker["running"]
        ]
        for status in statuses:
            queued = {name: status["broker"][name] for name in ("queued_items", "queued_bytes")}
            rows += [queued] if any(queued.values()) else []
        return rows

    with contextlib.suppress(AssertionError):
        until(lambda: not left(), 10, 0.1)
    found = left()
    outcome.check(not found, f"left in the brokers' tables: {found}")
