"""Strangers with unknown keys; `scripts/hostile --keys 30` does it for longer and measures."""

from tests.hostile import keys


def test_strangers_with_unknown_keys_cost_the_others_little():
    outcome = keys.run(3, rate=300)
    assert outcome.strangers > 100
    assert outcome.growth < keys.MOST_GROWTH
    assert keys.p99(outcome.during) < 0.5, str(outcome)
