"""The core of a job, in virtual time: what it submits, and in what order the outputs come out."""

import random

import pytest

from zstreamer.client.job import FIRST_CHUNK, MOST, QUIET, Encoded, Job, Probe, Submit, Window
from zstreamer.errors import (
    BrokerUnreachable,
    DeadlineExceeded,
    ModelNotFound,
    NoWorker,
    Overloaded,
    PredictError,
    WorkerLost,
    ZStreamerError,
)


class Cluster:
    """Feeds a job with numbers and answers its calls with their doubles, when told to.

    fate: what becomes of an item, by its number: an output, or an error.
    """

    def __init__(self, job, total, fate=lambda number, now: 2 * number, size=0):
        self.job, self.total, self.fate, self.size = job, total, fate, size
        self.now = 0.0
        self.open, self.probes, self.outputs, self.chunks = [], [], [], []
        self.most_open = self.most_held = 0

    def turn(self):
        job = self.job
        while count := job.wanted():
            end = min(job.fed + count, self.total)
            if job.fed == end:
                job.exhausted = True
                break
            job.feed([Encoded(number, self.size) for number in range(job.fed, end)])
        for action in job.poll(self.now):
            if isinstance(action, Submit):
                self.chunks.append(len(action.payloads))
                self.open.append(action)
            else:
                assert isinstance(action, Probe)
                self.probes.append(self.now)
        self.most_open = max(self.most_open, sum(len(each.payloads) for each in self.open))
        self.most_held = max(self.most_held, job.fed - job.index)
        while (chunk := job.ready()) is not None:
            self.outputs.extend(chunk.outputs)

    def answer(self, which=0, size=0):
        call = self.open.pop(which)
        outcomes = [self.fate(number, self.now) for number in call.payloads]
        self.job.ended(self.now, call, outcomes, size)
        self.turn()

    def wait(self):
        self.now = max(self.now, self.job.wake_at())
        self.turn()

    def wait_in_vain(self, error, until):
        while self.now < until:
            self.wait()
            self.job.probed(self.now, error)

    def run(self, which=lambda _: 0, seconds=0.01):
        self.turn()
        while not self.job.done:
            self.now += seconds
            if self.open:
                self.answer(which(self.open))
            else:
                self.wait()
        return self.outputs


def once(error, times=1):
    """A fate: each item meets an error so many times, then has its output."""
    met = {}

    def fate(number, now):
        met[number] = met.get(number, 0) + 1
        return error if met[number] <= times else 2 * number

    return fate


def test_outputs_come_in_order_whatever_order_the_calls_end_in():
    choose = random.Random(3)
    cluster = Cluster(Job(), 10_000)
    assert cluster.run(lambda calls: choose.randrange(len(calls))) == list(range(0, 20_000, 2))


def test_no_more_than_the_window_is_under_way_also_where_nobody_takes_the_outputs():
    job = Job()
    job.window = Window(1000)
    cluster = Cluster(job, 10_000)
    cluster.turn()
    while len(cluster.open) > 1:
        cluster.answer(-1)  # all but the first, so nothing can be handed out
    assert cluster.outputs == []
    assert 900 <= cluster.most_held <= 1000


def test_chunks_grow_with_the_speed_of_the_model():
    slow, fast = Job(), Job()
    slow.window = fast.window = Window(3072)
    few = Cluster(slow, 2000)
    few.run(seconds=5.0)
    many = Cluster(fast, 50_000)
    many.run(seconds=0.001)
    assert max(few.chunks) == FIRST_CHUNK
    assert max(many.chunks) == MOST


def test_large_items_make_small_chunks_and_the_bytes_under_way_are_bounded():
    job = Job()
    job.window = Window(3072, 50_000_000)
    cluster = Cluster(job, 500, size=1_000_000)
    cluster.run()
    assert cluster.chunks[-1] == 2
    assert cluster.most_open <= 50 + FIRST_CHUNK


def test_large_outputs_count_too():
    job = Job()
    job.window = Window(3072, 50_000_000)
    cluster = Cluster(job, 3000)
    cluster.turn()
    while not job.done:
        cluster.now += 0.01
        cluster.answer(0, size=1_000_000 * len(cluster.open[0].payloads))
        later = sum(len(each.payloads) for each in cluster.open)
    assert len(cluster.outputs) == 3000
    assert later <= 50


def test_a_few_items_leave_at_once_where_little_is_under_way():
    job = Job()
    job.feed([Encoded(0)])
    [first] = job.poll(0.0)
    assert first.payloads == [0]
    job.feed([Encoded(1)])
    assert job.poll(0.0) == [], "it waits for the one before it, or for more"
    job.ended(0.1, first, [0], 0)
    [second] = job.poll(0.1)
    assert second.payloads == [1]


def test_what_is_refused_for_now_is_submitted_again_after_the_time_that_the_broker_names():
    job = Job()
    cluster = Cluster(job, 100, once(Overloaded("full", retry_after=2.0)))
    cluster.turn()
    while cluster.open:
        cluster.answer()
    assert cluster.open == [], "while it is refused, it sends nothing new"
    assert job.wake_at() == 2.0
    assert cluster.run() == list(range(0, 200, 2))


def test_a_broker_with_little_room_is_given_fewer_at_once():
    room = 30

    def fate(number, now):
        return Overloaded("full", 0.1) if full else 2 * number

    cluster = Cluster(Job(), 3000, fate)
    cluster.turn()
    taken = []
    while not cluster.job.done:
        cluster.now += 0.01
        full = sum(len(each.payloads) for each in cluster.open) > room
        if cluster.open:
            taken += [] if full else [len(cluster.open[0].payloads)]
            cluster.answer()
        else:
            cluster.wait()
    assert cluster.outputs == list(range(0, 6000, 2))
    assert sum(taken) / len(taken) > 5


@pytest.mark.parametrize(
    "error", [PredictError("bad"), WorkerLost("gone"), DeadlineExceeded("late")]
)
def test_errors_of_items_stand_in_their_places_with_their_index(error):
    def fate(number, now):
        return type(error)(error.message) if number % 500 == 7 else 2 * number

    cluster = Cluster(Job(start=1000), 3000, fate)
    outputs = cluster.run()
    bad = [output.index for output in outputs if isinstance(output, ZStreamerError)]
    assert bad == [1007, 1507, 2007, 2507]
    assert [type(outputs[index - 1000]) for index in bad] == [type(error)] * 4
    assert cluster.job.failed == 4


def test_an_item_that_cannot_be_encoded_fails_in_its_place_and_is_not_submitted():
    job = Job()
    bad = Encoded(None, 0, PredictError("not sendable"))
    job.feed([Encoded(0), bad, Encoded(2)])
    job.exhausted = True
    [call] = job.poll(0.0)
    assert call.payloads == [0, 2]
    job.ended(0.0, call, [10, 12], 0)
    assert job.ready().outputs == [10, bad.error, 12]
    assert bad.error.index == 1


def test_a_chunk_of_bad_items_alone_needs_no_call():
    job = Job()
    job.feed([Encoded(None, 0, PredictError("not sendable"))])
    assert job.poll(0.0) == []
    assert len(job.ready().outputs) == 1


@pytest.mark.parametrize(
    "error", [ModelNotFound("none"), NoWorker("gave up", final=True), BrokerUnreachable("nobody")]
)
def test_what_no_item_can_survive_ends_the_job_at_the_next_output(error):
    cluster = Cluster(Job(), 100, lambda number, now: error)
    cluster.turn()
    with pytest.raises(type(error)) as caught:
        cluster.answer()
    assert caught.value.index == 0


def test_a_broker_that_was_there_is_waited_for_as_long_as_patience_goes():
    cluster = Cluster(Job(patience=60), 5000)
    cluster.turn()
    cluster.answer()
    assert len(cluster.outputs) == FIRST_CHUNK
    cluster.fate = once(BrokerUnreachable("nobody answered"), times=3)
    assert cluster.run(seconds=0.1) == list(range(0, 10_000, 2))

    cluster = Cluster(Job(patience=60), 5000)
    cluster.turn()
    cluster.answer()
    cluster.fate = once(BrokerUnreachable("nobody answered"), times=1000)
    with pytest.raises(BrokerUnreachable) as caught:
        cluster.run(seconds=0.1)
    assert caught.value.index == FIRST_CHUNK == len(cluster.outputs)
    assert 60 <= cluster.now < 90


def test_a_job_without_answers_asks_whether_there_is_a_worker_and_ends_where_none_comes():
    job = Job(patience=60)
    cluster = Cluster(job, 10)
    cluster.turn()
    with pytest.raises(NoWorker, match="none is ready"):
        cluster.wait_in_vain(NoWorker("none is ready"), until=100)
    assert cluster.probes[0] == QUIET
    assert 60 <= cluster.now <= 70


def test_a_slow_model_may_take_its_time_while_its_worker_is_there():
    job = Job(patience=60)
    cluster = Cluster(job, 10)
    cluster.turn()
    for _ in range(100):
        cluster.wait()
        job.probed(cluster.now, None)
    assert cluster.now > 400
    cluster.answer()
    assert cluster.outputs == list(range(0, 20, 2))


def test_a_job_that_waits_says_why_but_not_all_the_time():
    job = Job()
    cluster = Cluster(job, 10, once(Overloaded("full", 1.0), times=1000))
    cluster.turn()
    told = []
    while cluster.now < 100:
        if cluster.open:
            cluster.answer()
        else:
            cluster.wait()
        told += [words] if (words := job.warning(cluster.now)) else []
    assert told == ["the job waits at item 0: Overloaded: full"] * 2
