"""Workers that are killed, frozen, and asked to stop."""

import time
from itertools import cycle, islice

from tests.chaos.stage import BATCH_TIME, Stage
from zstreamer.system.slots import HEALTHY

SEEN = 2.5
"""Seconds within which a silent worker's items run again."""

NOISE = 2.0
"""Seconds more for a short run, which shares its machine with the rest of the test suite."""

FREEZE = 3.0
"""Seconds for which something stands still: well beyond the heartbeat's 2 s."""


def child_kill(times, options):
    """The model's process is killed in the middle of batches."""
    return _kill("child-kill", "child", times, options)


def agent_kill(times, options):
    """The agent is killed, and its model's process with it."""
    return _kill("agent-kill", "agent", times, options)


def _kill(row, which, times, options):
    with Stage(row, times, options) as stage:
        crew = stage.crew(2)
        outcome = stage.outcome
        with stage.load() as load:
            for victim in islice(cycle(crew), times):
                load.more(20)
                if which == "agent" and times > 10:
                    time.sleep(HEALTHY / 2)  # each lives long enough to be started again at once
                victim.kill(which)
            load.more(20)
            outcome.check_calls(load.stop())
        outcome.check_delay(1.0 + 2 * BATCH_TIME + (NOISE if options.quick else 0.0))
        again = outcome.figures["run_again"] = stage.run_twice()
        outcome.check(again > 0, "no batch was hit")
    return outcome


def agent_freeze(times, options):
    """The agent stands still for longer than the heartbeat waits, then goes on."""
    with Stage("agent-freeze", times, options) as stage:
        crew = stage.crew(2)
        outcome = stage.outcome
        with stage.load() as load:
            for victim in islice(cycle(crew), times):
                load.more(20)
                with victim.frozen():
                    time.sleep(FREEZE)
                victim.wait_warm()
            load.more(20)
            outcome.check_calls(load.stop())
        outcome.check_delay(SEEN + 2 * BATCH_TIME + (NOISE if options.quick else 0.0))
        again = outcome.figures["run_again"] = stage.run_twice()
        outcome.check(again > 0, "no batch was hit")
    return outcome


def rolling(times, options):
    """All workers are stopped and started again, one after another."""
    crew_size = 3
    with Stage("rolling", times, options) as stage:
        crew = stage.crew(crew_size)
        outcome = stage.outcome
        with stage.load(threads=24) as load:
            load.more(50)
            calm_from = time.monotonic()
            time.sleep(2.0)
            calm_to = time.monotonic()
            lowest = []
            for victim in islice(cycle(crew), times):
                start = time.monotonic()
                before = len(victim.starts)
                victim.supervisor.terminate()
                code = victim.supervisor.wait(30)
                outcome.check(code == 0, f"a worker's exit code was {code}")
                time.sleep(0.5)
                lowest.append((start, time.monotonic()))
                victim.start()
                victim.wait_warm(before)
                load.more(20)
            outcome.check_calls(load.stop())
            calm = load.rate(calm_from, calm_to)
            away = sum(load.rate(*each) for each in lowest) / len(lowest)
        share = outcome.figures["rate_share_while_away"] = away / calm
        # A tenth is for the noise of a busy machine, and half where the test suite is that noise.
        promised = (0.5 if options.quick else 0.9) * (crew_size - 1) / crew_size
        outcome.check(share >= promised, f"rate fell to {share:.2f}, promised {promised:.2f}")
        again = outcome.figures["run_again"] = stage.run_twice()
        outcome.check(not again, f"{again} items were run twice")
    return outcome


def worker_term(times, options):
    """A worker is asked to stop while it runs what may run only once."""
    with Stage("worker-term", times, options) as stage:
        crew = stage.crew(2)
        outcome = stage.outcome
        with stage.load(idempotent=False) as load:
            for victim in islice(cycle(crew), times):
                load.more(20)
                before = len(victim.starts)
                victim.supervisor.terminate()
                code = victim.supervisor.wait(30)
                outcome.check(code == 0, f"a worker's exit code was {code}")
                victim.start()
                victim.wait_warm(before)
            load.more(20)
            outcome.check_calls(load.stop())
        again = outcome.figures["run_again"] = stage.run_twice()
        outcome.check(not again, f"{again} items were run twice")
    return outcome
