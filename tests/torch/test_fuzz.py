"""Shapes, dtypes, batch sizes, bad items and batches that are given up: no row is another's."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as some

from tests.torch.fuzz import COUNTS, DTYPES, LENGTHS, Case, check


@settings(deadline=None, max_examples=40)
@given(
    some.builds(
        Case,
        seed=some.integers(0, 2**32 - 1),
        dtype=some.sampled_from(["float32", "bfloat16", "float16"]),
        kind=some.sampled_from(DTYPES),
        shape=some.sampled_from([(1,), (3,), (2, 2)]),
        lengths=some.sampled_from(LENGTHS),
        counts=some.sampled_from(COUNTS),
        batches=some.lists(some.integers(1, 20), min_size=1, max_size=8).map(tuple),
        graphs=some.booleans(),
        bad=some.sampled_from([0.0, 0.05, 0.5]),
        given_up=some.sampled_from([0.0, 0.3]),
    )
)
def test_every_row_is_its_items_own(case):
    check(case)
