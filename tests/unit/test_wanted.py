"""How many workers a load wants, and what scaling on that is worth."""

import pytest

from tests.bench.scaling import ByItems, ByWanted, World, day, steps
from zstreamer.broker.wanted import IDLE, Load, Wanted

BATCH, BETA, ALPHA = 32, 0.020, 0.002  # 381 items a second for each worker


class Model:
    """A model whose workers answer all that comes, as far as they can."""

    def __init__(self, target=0.5):
        self.wanted = Wanted(target)
        self.now = 0.0
        self.arrived = self.answered = self.queued = 0

    def run(self, seconds, rate, workers, *, yields=1.0, known=True):
        """Let time pass; gives the least and the most that was wanted."""
        seen = []
        for _ in range(round(seconds / 0.25)):
            self.now += 0.25
            self.arrived += rate / 4
            most = workers * yields * BATCH / (BETA + ALPHA * BATCH) / 4
            done = min(self.queued + rate / 4, most)
            self.queued += rate / 4 - done
            self.answered += done
            speed = (BATCH, BETA, ALPHA) if known and workers else (0, 0.0, 0.0)
            age = self.queued / (4 * most) if self.queued and most else 60.0 * bool(self.queued)
            busy = 1.0 if self.queued else 0.5
            load = Load(
                int(self.arrived), int(self.answered), int(self.queued), age, workers, busy, *speed
            )
            self.wanted.look(self.now, load)
            seen.append(self.wanted.workers)
        return min(seen), max(seen)


@pytest.fixture
def model():
    return Model()


def test_it_wants_as_many_as_answer_the_rate_in_batches_that_are_nearly_full(model):
    model.run(60, rate=2000, workers=7)
    assert model.wanted.workers == 7  # 2000 / (381 · 0.85) = 6.2
    assert model.wanted.rate == pytest.approx(2000, rel=0.05)


def test_it_wants_more_where_two_batches_would_not_fit_into_the_target():
    tight = Model(target=0.1)
    tight.run(60, rate=2000, workers=12)
    # 2000 · α / (1 - 2β/L) = 6.7, as 2·T of that many is 0.1 s
    assert tight.wanted.workers == 7
    tighter = Model(target=0.05)
    tighter.run(60, rate=2000, workers=25)
    assert tighter.wanted.workers == 20


def test_it_does_not_follow_a_burst_of_a_second_nor_every_change_of_the_rate(model):
    model.run(60, rate=400, workers=3)
    before = model.wanted.workers
    assert model.run(1, rate=1200, workers=3)[1] == before
    assert model.run(5, rate=400, workers=3) == (before, before)
    for _ in range(10):
        low, high = model.run(30, rate=400, workers=3)
        assert (low, high) == (before, before)
        assert model.run(10, rate=300, workers=3) == (before, before)


def test_it_falls_after_a_calm_and_to_nothing_after_a_long_silence(model):
    model.run(60, rate=2000, workers=7)
    assert model.run(100, rate=400, workers=7)[0] == 7
    model.run(120, rate=400, workers=7)
    assert model.wanted.workers == 2
    assert model.run(IDLE - 10, rate=0, workers=2)[0] >= 1
    model.run(20, rate=0, workers=2)
    assert model.wanted.workers == 0
    model.run(1, rate=4, workers=0)
    assert model.wanted.workers >= 1


def test_it_counts_what_was_refused(model):
    model.run(60, rate=400, workers=2)
    for _ in range(120):
        model.now += 0.25
        model.arrived += 500  # of which 400 items a second are taken
        model.answered += 100
        model.wanted.look(
            model.now,
            Load(int(model.arrived), int(model.answered), 0, 0.0, 2, 1.0, BATCH, BETA, ALPHA),
        )
    assert model.wanted.workers >= 6


def test_it_sees_that_workers_answer_less_than_their_batch_times_say(model):
    model.run(90, rate=1500, workers=5, yields=0.4)
    assert model.wanted.workers > 1.5 * 1500 / (381 * 0.85)


def test_it_asks_for_one_more_after_the_other_while_the_queue_stays_too_old(model):
    for step in range(400):
        model.now = step * 0.25
        model.wanted.look(model.now, Load(step, step, 5, 3.0, 4, 0.5, BATCH, BETA, ALPHA))
    assert model.wanted.workers >= 5


def test_where_no_batch_has_run_yet_it_wants_those_that_are_busy(model):
    model.run(30, rate=10, workers=0, known=False)
    assert model.wanted.workers == 1


def test_scaling_on_it_takes_fewer_workers_than_scaling_on_queue_length_and_has_fewer_late():
    own, queue = (
        World(each, lambda now: day(now + 4500), 1200).run() for each in (ByWanted(), ByItems(256))
    )
    assert own.hours < 0.5 * queue.hours
    assert own.late < 0.5 * queue.late


def test_steps_of_the_load_are_followed_at_half_the_workers_of_a_queue_length():
    own = World(ByWanted(), steps, 1100).run()
    queue = World(ByItems(64), steps, 1100).run()
    assert own.hours < 0.6 * queue.hours
    assert own.late < queue.late
