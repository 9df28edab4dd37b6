"""What the broker sums up of the batches that workers tell of."""

from zstreamer.broker.batches import Batches


def facts(batches, items, **more):
    return {"batches": batches, "items": items, "closed": {"all": batches}, **more}


def test_what_a_worker_tells_first_is_where_its_counts_begin():
    found = Batches()
    found.told({}, facts(100, 900, sizes={"16": 100}))
    assert found.sizes.count == found.sizes.sum == 0
    before = facts(100, 900, sizes={"16": 100}, cost=1.5, padded=2.0)
    now = facts(103, 930, sizes={"16": 102, "4": 1}, cost=2.0, padded=4.0)
    found.told(before, now)
    assert found.sizes.buckets()[2:5] == [("4", 1), ("8", 1), ("16", 3)]
    assert (found.sizes.sum, found.closed["all"]) == (30, 3)
    assert (found.cost, found.padded) == (0.5, 2.0)


def test_counts_of_several_workers_and_of_later_ones_are_added():
    found = Batches()
    for start in (0, 1000):
        found.told(facts(start, start), facts(start + 2, start + 5))
    assert (found.closed["all"], found.sizes.sum) == (4, 10)


def test_what_makes_no_sense_takes_nothing_away():
    found = Batches()
    found.told(facts(5, 50), facts(3, 30))
    found.told(facts(5, 50), {"closed": 7, "items": "x", "sizes": {"3": 9, "1": True}})
    found.told(facts(1, 1), {"closed": {"a name that a worker made up": 5}})
    assert set(found.closed) <= {"full", "all", "hold", "cost", "target", "alone"}
    assert sum(found.closed.values()) == 0
    assert found.sizes.sum == 0
