"""Ten times more work than there are workers for."""

import time

from tests.chaos.measure import Watch
from tests.chaos.stage import Stage

BATCH = 32
BETA, ALPHA = 0.016, 0.0015
CAPACITY = BATCH / (BETA + ALPHA * BATCH)
"""Items a second: 500."""

BUDGET = 2.0
MEMORY = 64
"""MiB that the broker may grow by."""

QUICK, NOISE = 0.1, 0.4
"""Seconds within which a call that cannot be done in time is refused; and those more that a short
run has, which shares its machine with the rest of the test suite."""

SHARE, NOISY_SHARE = 0.8, 0.5
"""Of the capacity that is used in any case, and by a short run."""


def overload(times, options):
    """A flood of 10 times the capacity, for 30 seconds or 5; ``times`` counts floods."""
    seconds = 5.0 if options.quick else 30.0
    with Stage("overload", times, options) as stage:
        stage.crew(1, batch_size=BATCH, beta=BETA, alpha=ALPHA)
        outcome = stage.outcome
        broker = stage.clusters[0].broker.pid
        finals, rates = [], []
        # How long a batch takes is known to the broker once there were some.
        stage.clusters[0].client().predict(list(range(4 * BATCH)))
        with Watch(broker=broker) as watch:
            for _ in range(times):
                flood = {"rate": 5 * CAPACITY, "most": 20, "timeout": BUDGET, "held": True}
                one, other = (stage.load(**flood) for _ in range(2))
                with one, other:
                    # Together, since one that comes later takes a fair share from the items of
                    # the other one, which were let in when they had all of the worker.
                    one.release()
                    other.release()
                    start = time.monotonic()
                    time.sleep(seconds)
                    end = time.monotonic()
                    finals += [one.stop(), other.stop()]
                    rates.append(one.rate(start, end) + other.rate(start, end))
        outcome.check_calls(*finals, errors=("Overloaded", "DeadlineExceeded"))
        _check(outcome, outcome.calls, QUICK + (NOISE if options.quick else 0.0))
        outcome.figures["broker_grew_mib"] = watch.peak("broker")
        outcome.check(watch.peak("broker") <= MEMORY, f"the broker grew beyond {MEMORY} MiB")
        share = outcome.figures["share_of_capacity"] = min(rates) / CAPACITY
        least = NOISY_SHARE if options.quick else SHARE
        outcome.check(share >= least, f"only {share:.2f} of the capacity was used")
    return outcome


def _check(outcome, calls, quick):
    refused = calls["errors"].get("Overloaded", 0)
    late = calls["errors"].get("DeadlineExceeded", 0)
    met = outcome.figures["admitted_met"] = calls["answered"] / (calls["answered"] + late or 1)
    outcome.check(met >= 0.99, f"only {met:.1%} of the admitted met their budgets")
    outcome.check(refused > calls["answered"], "hardly anything was refused")
    # The worst is shown only: on a busy machine it is the callers that come late.
    outcome.figures["refused_worst"] = calls["refused_worst"]
    outcome.figures["refused_p99"] = p99 = calls["refused_p99"]
    outcome.check(p99 <= quick, f"1 % of the refusals took {p99:.3f} s, promised {quick} s")
