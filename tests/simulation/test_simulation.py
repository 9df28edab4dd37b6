"""Simulated clusters keep every promise, and the simulator finds those who break one."""

import functools

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.scenario import Returners, Scenario

SEEDS = 600
CHUNK = 150
ENOUGH = 600  # seeds within which every mutant is found

FINDERS = {
    "suspects go back into the common queue": 44,
    "an agent reports tickets of a lost connection on the next": 20,
    "answers are not kept until they are read": 217,
    "a dead clients items stay": 126,
    "a client takes all its items for known after a reconnect": 17,
    "a client sends everything again after a reconnect": 17,
    "an agent keeps quiet about items that had not begun": 20,
    "a draining worker leaves at once": 116,
    "calls do not move from a lost broker to another": 56,
    "items stay with a broker that has lost its worker": 700,
    "what waits for a worker is not called back": 700,
    "what a broken model was running is nobodys fault": 1343,
    "a broker that is out of reach is not waited for": 1096,
    "what a silent worker holds is not taken back": 25,
    "what may run once is run again after an exception": 9,
    "who is suspected after a hang or a lost device is forgotten": 20,
}
"""The first seeds that found mutants which few find. They are tried before all others, which only
saves time: a change may let other seeds find them.
"""


@functools.cache
def outcome_of(seed):
    """Run a seed, once for all tests, since the same seed is the same run."""
    return Scenario(seed).run()


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_is_kept_under_faults(first):
    for seed in range(first, first + CHUNK):
        outcome = outcome_of(seed)
        assert not outcome.problem, f"scripts/simulate --seed {seed} --trace: {outcome.problem}"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_deliberate_bug_is_found(name):
    seeds = [FINDERS.get(name, 0), *range(ENOUGH)]
    with MUTANTS[name]():
        problem = next(filter(None, (Scenario(seed).run().problem for seed in seeds)), None)
    assert problem, "nothing was noticed"
    assert "TypeError" not in problem, "the bug does not fit the method that it replaces"


def test_the_same_seed_is_the_same_run():
    runs = [Scenario(7, trace=True).run() for _ in range(2)]
    assert runs[0].trace == runs[1].trace
    assert len(runs[0].trace) > 5


def test_workers_do_gather():
    seeds = range(Returners.SEEDS // 2, 200, Returners.SEEDS)
    gathered = [seed for seed in seeds if outcome_of(seed).gathered]
    assert len(gathered) > 5, gathered


def test_faults_do_happen():
    faults = {fault for seed in range(200) for fault in outcome_of(seed).faults}
    assert len(faults) == 16, faults
