"""Connections that are reset, or stand still."""

import time
from itertools import cycle, islice

from tests.chaos.deaths import FREEZE, NOISE, SEEN
from tests.chaos.relay import Relay
from tests.chaos.stage import BATCH_TIME, Stage
from tests.helpers.waiting import until


def client_cut(times, options):
    """The client's connection is reset, also in the middle of a message; its items go on."""
    with Stage("client-cut", times, options, tcp=True) as stage:
        stage.crew(2)
        outcome = stage.outcome
        with Relay(stage.address) as relay, stage.load(relay.address) as load:
            for turn in range(times):
                load.more(10)
                cuts = relay.cuts
                relay.reset(midway=bool(turn % 2))
                until(lambda cuts=cuts: relay.cuts > cuts)
            load.more(20)
            outcome.check_calls(load.stop())
        outcome.check_delay(1.0 + 2 * BATCH_TIME)
        again = outcome.figures["run_again"] = stage.run_twice()
        outcome.check(not again, f"{again} items were run twice")
        outcome.figures["cuts"] = relay.cuts
    return outcome


def link_freeze(times, options):
    """All connections between a worker and its broker stand still, then go on."""
    with Stage("link-freeze", times, options, tcp=True) as stage:
        [cluster] = stage.clusters
        outcome = stage.outcome
        with Relay(cluster.worker_address) as one, Relay(cluster.worker_address) as other:
            relays = (one, other)
            crew = [stage.worker(broker=(relay.address,)) for relay in relays]
            stage.wait_warm()
            with stage.load() as load:
                for relay, victim in islice(cycle(zip(relays, crew, strict=True)), times):
                    load.more(20)
                    with relay.stalled():
                        time.sleep(FREEZE)
                    victim.wait_warm()
                load.more(20)
                outcome.check_calls(load.stop())
        outcome.check_delay(SEEN + 2 * BATCH_TIME + (NOISE if options.quick else 0.0))
        again = outcome.figures["run_again"] = stage.run_twice()
        outcome.check(again > 0, "no batch was hit")
    return outcome
