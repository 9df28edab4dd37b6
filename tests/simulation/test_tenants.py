"""A tenant with a hundred times the load of another one costs it next to nothing."""

import pytest

from tests.simulation.tenants import CROWD, run


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_a_crowd_costs_another_tenant_neither_its_share_nor_its_latency(weight):
    equal, crowd = run(1, 1, weight), run(1, CROWD, weight)
    assert crowd.share == pytest.approx(weight / (1 + weight), rel=0.05)
    assert crowd.latency < 1.1 * equal.latency
    assert crowd.rare < 1.1 * equal.rare


def test_without_tenants_the_crowd_takes_nearly_all():
    assert run(1, CROWD, apart=False).share < 0.02
