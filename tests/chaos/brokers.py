"""Brokers that are killed."""

import time
from itertools import cycle, islice

from tests.chaos.stage import BATCH_TIME, Stage


def broker_kill(times, options):
    """The only broker is killed, and started again within a second."""
    with Stage("broker-kill", times, options, tcp=True) as stage:
        stage.crew(2)
        [cluster] = stage.clusters
        outcome = stage.outcome
        longest = 0.0
        with stage.load() as load:
            for _ in range(times):
                load.more(30)
                start = time.monotonic()
                cluster.broker.kill()
                cluster.broker.wait(5)
                cluster.start_broker()
                cluster.wait_up()
                longest = max(longest, time.monotonic() - start)
                stage.wait_warm()
            load.more(30)
            outcome.check_calls(load.stop())
        outcome.figures["longest_absence"] = longest
        outcome.figures["run_again"] = stage.run_twice()
    return outcome


def broker_of_two(times, options):
    """One of two brokers is killed; the other one takes its calls."""
    with Stage("broker-of-two", times, options, brokers=2, tcp=True) as stage:
        stage.crew(2)
        outcome = stage.outcome
        with stage.load() as load:
            for victim in islice(cycle(stage.clusters), times):
                load.more(30)
                victim.broker.kill()
                victim.broker.wait(5)
                load.more(30)
                victim.start_broker()
                victim.wait_up()
                stage.wait_warm()
            load.more(30)
            outcome.check_calls(load.stop())
        # A broker that is gone may come back for 0.5 s before its calls move.
        outcome.check_delay(1.0 + 2 * BATCH_TIME)
        outcome.figures["run_again"] = stage.run_twice()
    return outcome
