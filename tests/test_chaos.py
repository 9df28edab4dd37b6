"""Every promise on real processes, with few faults each; scripts/chaos does the same with many."""

import pytest

from tests.chaos import rows


@pytest.mark.parametrize("name", rows.ROWS)
def test_the_promise_holds(name):
    outcome = rows.run(name, rows.Options(quick=True))
    assert outcome.good, outcome.plain()


@pytest.mark.parametrize("name", ["child-kill", "client-cut", "broker-kill"])
def test_the_promise_holds_for_greenlets(name):
    outcome = rows.run(name, rows.Options(quick=True, gevent=True), 2)
    assert outcome.good, outcome.plain()
