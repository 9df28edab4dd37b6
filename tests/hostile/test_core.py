"""A short version of `scripts/hostile --fuzz`."""

import pytest

from tests.hostile import core


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_said_to_a_broker_raises_nothing_and_is_answered_well(seed):
    core.Fuzz(seed).run(4000)
