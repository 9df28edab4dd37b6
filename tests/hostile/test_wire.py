"""A short version of `scripts/hostile --minutes 5`."""

import pytest

from tests.hostile import wire


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_nobody_but_the_attackers_notices_an_attack_on_both_ports():
    outcome = wire.run(5)
    assert not outcome.errors
    assert outcome.memory < wire.MOST_MEMORY
    assert max(outcome.delays) < 4 * wire.MOST_DELAY  # machines that run tests are busy
    assert outcome.counts["deaf"]
