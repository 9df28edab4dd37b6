"""`ThreadedStreamer`: batches in this process."""

import asyncio
import inspect
import threading
import time
from concurrent import futures
from concurrent.futures import CancelledError, Future

import pytest

from tests.helpers import models
from tests.helpers.closed_loop import settled
from tests.helpers.program import succeed
from tests.helpers.waiting import until
from zstreamer import ManagedModel, ThreadedStreamer, errors


def test_its_arguments_are_those_of_the_older_library_in_the_same_order():
    parameters = inspect.signature(ThreadedStreamer).parameters.values()
    assert [(p.name, p.default) for p in parameters] == [
        ("predict_function", inspect.Parameter.empty),
        ("batch_size", inspect.Parameter.empty),
        ("max_latency", 0.1),
        ("worker_timeout", 20),
    ]


@pytest.mark.gevent
def test_predict_answers_in_order_whatever_the_batches_are():
    with ThreadedStreamer(models.double, 7) as streamer:
        assert streamer.predict([1, 2, 3]) == [2, 4, 6]
        assert streamer.predict(list(range(1000))) == [2 * i for i in range(1000)]
        assert streamer.predict([]) == []
        assert streamer.submit([]).result(5) == []


@pytest.mark.gevent
def test_submit_gives_a_future():
    release = threading.Event()

    def wait(batch):
        while not release.is_set():
            time.sleep(0.005)
        return batch

    with ThreadedStreamer(wait, 4) as streamer:
        future = streamer.submit([1, 2])
        assert isinstance(future, Future)
        assert future.done() is False
        for kind in (futures.TimeoutError, TimeoutError):
            with pytest.raises(kind):
                future.result(timeout=0.05)
            with pytest.raises(kind):
                future.exception(timeout=0.05)
        release.set()
        assert future.result(timeout=10) == [1, 2]
        assert future.done() is True


@pytest.mark.gevent
def test_many_threads_share_batches_and_each_gets_its_own():
    sizes = []
    started = threading.Event()

    def predict(batch):
        sizes.append(len(batch))
        started.wait(30)
        time.sleep(0.01)
        return models.double(batch)

    answers = {}
    with ThreadedStreamer(predict, 16) as streamer:
        threads = [
            threading.Thread(target=lambda i=i: answers.update({i: streamer.predict([i])}))
            for i in range(200)
        ]
        for thread in threads:
            thread.start()
        started.set()
        for thread in threads:
            thread.join()
    assert answers == {i: [2 * i] for i in range(200)}
    assert max(sizes) == 16
    assert len(sizes) < 100


@pytest.mark.asyncio
async def test_batches_fill_under_asyncio():
    with ThreadedStreamer(models.batch_sizes, 8) as streamer:
        futures = [asyncio.wrap_future(streamer.submit([i])) for i in range(64)]
        sizes = [size for [size] in await asyncio.gather(*futures)]
    assert max(sizes) == 8


@pytest.mark.gevent
def test_callers_who_return_share_a_batch():
    with ThreadedStreamer(models.slow_batch_sizes, 64) as streamer:
        assert settled(streamer.predict, 8, low=7, high=8)


def test_greedy_batches_keep_two_halves_of_the_callers_apart():
    """In threads: greenlets that are answered together also ask again together."""
    settings = {"max_latency": 0}
    with ThreadedStreamer(models.slow_batch_sizes, 64, **settings) as streamer:
        assert settled(streamer.predict, 8, low=3, high=5)


@pytest.mark.gevent
def test_a_lone_caller_does_not_pay_max_latency():
    start = time.monotonic()
    with ThreadedStreamer(models.double, 64, max_latency=0.5) as streamer:
        for i in range(20):
            assert streamer.predict([i]) == [2 * i]
    assert time.monotonic() - start < 20 * 0.5 / 4


@pytest.mark.gevent
def test_an_exception_of_the_model_reaches_its_caller_alone():
    with ThreadedStreamer(models.picky, 16) as streamer:
        good = [streamer.submit([i]) for i in range(10)]
        bad = streamer.submit(["fine", "boom"])
        in_place = streamer.submit(["bad"])
        with pytest.raises(errors.PredictError, match="the model met boom") as caught:
            bad.result(10)
        assert (caught.value.index, caught.value.type) == (1, "ValueError")
        assert "tests/helpers/models.py" in caught.value.traceback
        with pytest.raises(errors.PredictError) as caught:
            in_place.result(10)
        assert caught.value.type == "KeyError"
        assert [f.result(10) for f in good] == [[i] for i in range(10)]
        assert streamer.predict(["after"]) == ["after"]


@pytest.mark.gevent
def test_the_wrong_number_of_outputs_is_an_error_that_says_so():
    with (
        ThreadedStreamer(models.forgetful, 16) as streamer,
        pytest.raises(errors.PredictError, match="returned 0 outputs for 1 input"),
    ):
        streamer.predict([1, 2, 3])


@pytest.mark.gevent
def test_a_call_that_takes_too_long_ends_with_its_timeout_and_the_next_one_is_answered():
    with ThreadedStreamer(lambda batch: time.sleep(batch[0]) or batch, 1, 0.1, 0.3) as streamer:
        with pytest.raises(errors.DeadlineExceeded):
            streamer.predict([0.6])
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                assert streamer.predict([0.01]) == [0.01]
                break
            except errors.DeadlineExceeded:
                continue
        future = streamer.submit([0.6])
        with pytest.raises(TimeoutError):
            future.result(10)
        assert future.done()


@pytest.mark.gevent
@pytest.mark.parametrize("items", ["text", b"bytes", {"a": 1}])
def test_a_lone_item_in_place_of_a_list_is_refused_with_the_fix(items):
    with (
        ThreadedStreamer(models.double, 4) as streamer,
        pytest.raises(TypeError, match=r"wrap it: \[item\]"),
    ):
        streamer.predict(items)


@pytest.mark.parametrize("size", [0, -1, 1.5, "8"])
def test_a_batch_size_that_makes_no_sense_is_refused(size):
    with pytest.raises((TypeError, ValueError), match=r"batch_size|integer"):
        ThreadedStreamer(models.double, size)


@pytest.mark.gevent
def test_a_cancelled_future_is_not_run():
    running, release, ran = threading.Event(), threading.Event(), []

    def predict(batch):
        ran.extend(batch)
        running.set()
        while not release.is_set():
            time.sleep(0.005)
        return batch

    with ThreadedStreamer(predict, 1) as streamer:
        first = streamer.submit(["first"])
        while not ran:
            time.sleep(0.005)
        second = streamer.submit(["second"])
        assert second.cancel()
        release.set()
        assert first.result(10) == ["first"]
        assert streamer.predict(["third"]) == ["third"]
        with pytest.raises(CancelledError):
            second.result(1)
    assert ran == ["first", "third"]


@pytest.mark.gevent
def test_done_callbacks_may_block_and_make_calls_themselves():
    found, ended = [], threading.Event()
    with ThreadedStreamer(models.double, 4) as streamer:

        def call_again(future):
            found.append(streamer.predict(future.result()))
            ended.set()

        streamer.submit([1]).add_done_callback(call_again)
        assert ended.wait(10)
    assert found == [[4]]


class Gate:
    """A model that answers once it is opened, and notes what it has begun."""

    def __init__(self):
        self.begun = []
        self.opened = threading.Event()

    def __call__(self, batch):
        self.begun += batch
        while not self.opened.is_set():
            time.sleep(0.005)
        return batch

    def wait_begun(self, item):
        until(lambda: item in self.begun)


@pytest.mark.gevent
def test_destroy_workers_waits_for_the_running_batch_whose_callers_are_answered():
    gate = Gate()
    streamer = ThreadedStreamer(gate, 1)
    running = streamer.submit(["running"])
    called_back = threading.Event()
    running.add_done_callback(lambda _: called_back.set())
    gate.wait_begun("running")
    waiting = streamer.submit(["waiting"])
    ending = threading.Thread(target=streamer.destroy_workers)
    ending.start()
    assert isinstance(waiting.exception(10), errors.Cancelled)
    assert not running.done()
    assert ending.is_alive()
    with pytest.raises(errors.Cancelled, match="closed"):
        streamer.predict([1])
    gate.opened.set()
    ending.join(10)
    assert running.result(0) == ["running"]
    assert called_back.wait(10)
    assert gate.begun == ["running"]
    streamer.destroy_workers()


def test_destroy_workers_leaves_a_predict_behind_that_hangs_and_says_so(caplog):
    gate = Gate()
    streamer = ThreadedStreamer(gate, 1, worker_timeout=0.3)
    future = streamer.submit([1], timeout=60)
    gate.wait_begun(1)
    streamer.destroy_workers()
    gate.opened.set()
    assert "predict has run for more than 0.3 s" in caplog.text
    assert isinstance(future.exception(10), errors.Cancelled)


@pytest.mark.gevent
def test_a_model_may_close_its_own_streamer():
    def predict(batch):
        streamer.destroy_workers()
        return batch

    streamer = ThreadedStreamer(predict, 1)
    begin = time.monotonic()
    with pytest.raises(errors.Cancelled):
        streamer.predict([1])
    assert time.monotonic() - begin < 5


@pytest.mark.gevent
def test_a_call_may_have_a_timeout_of_its_own():
    gate = Gate()
    with ThreadedStreamer(gate, 1) as streamer:
        patient = streamer.submit([1], timeout=60)
        gate.wait_begun(1)
        begin = time.monotonic()
        hasty = [streamer.submit([2], timeout=seconds) for seconds in (30, 0.4, 0.2)]
        for future in hasty[1:]:
            assert isinstance(future.exception(10), errors.DeadlineExceeded)
        with pytest.raises(errors.DeadlineExceeded, match=r"0\.1 s"):
            streamer.predict([3], timeout=0.1)
        assert time.monotonic() - begin < 5
        gate.opened.set()
        assert (patient.result(10), hasty[0].result(10)) == ([1], [2])
        for bad in (0, -1, "soon", float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                streamer.predict([1], timeout=bad)
        assert streamer.predict([4], timeout=float("inf")) == [4]
    with pytest.raises(ValueError, match="worker_timeout"):
        ThreadedStreamer(gate, 1, worker_timeout=0)


@pytest.mark.gevent
def test_what_is_more_urgent_runs_first_and_the_oldest_among_equals():
    gate = Gate()
    with ThreadedStreamer(gate, 2) as streamer:
        futures = [streamer.submit(["first"])]
        gate.wait_begun("first")
        calls = (("b", 0), ("c", 0), ("z", -1), ("a", 7), ("d", 0))
        futures += [streamer.submit([name, name], priority=urgency) for name, urgency in calls]
        gate.opened.set()
        assert all(future.result(10) for future in futures)
        assert gate.begun == ["first", *"aabbccddzz"]
        with pytest.raises(TypeError):
            streamer.predict([1], priority="high")


@pytest.mark.gevent
def test_errors_may_stand_in_their_items_places():
    class Half(ManagedModel):
        def prepare(self, item):
            return 1 / item

        def predict(self, batch):
            return models.picky(["boom" if each == 1 else each for each in batch])

    with ThreadedStreamer(Half, 8) as streamer:
        for answers in (
            streamer.predict([2, 0, 4, 1], return_exceptions=True),
            streamer.submit([2, 0, 4, 1], return_exceptions=True).result(10),
        ):
            assert (answers[0], answers[2]) == (0.5, 0.25)
            assert [(type(e), e.type, e.index) for e in answers[1::2]] == [
                (errors.PredictError, "ZeroDivisionError", 1),
                (errors.PredictError, "ValueError", 3),
            ]
        with pytest.raises(errors.PredictError) as caught:
            streamer.predict([2, 0, 4, 1])
        assert caught.value.index == 1


@pytest.mark.gevent
def test_an_object_with_a_predict_method_and_a_model_class_will_do():
    class Adder(ManagedModel):
        def init_model(self):
            self.one = 1

        def predict(self, batch):
            return [item + self.one for item in batch]

    with ThreadedStreamer(Adder, 4) as streamer:
        assert streamer.predict([1, 2]) == [2, 3]
    ready = Adder()
    ready.init_model()
    with ThreadedStreamer(ready, 4) as streamer:
        assert streamer.predict([1, 2]) == [2, 3]


HUB = """
from gevent import monkey
monkey.patch_all()
import gevent, time
from zstreamer import ThreadedStreamer

def busy(batch):
    end = time.perf_counter() + 0.3
    while time.perf_counter() < end:
        pass
    return [len(batch)] * len(batch)

def blocked(batch):
    import select
    from gevent import monkey
    monkey.get_original("time", "sleep")(0.3)
    return [len(batch)] * len(batch)

gaps, before = [], time.monotonic()
def tick():
    global before
    while True:
        gevent.sleep(0.01)
        now = time.monotonic()
        gaps.append(now - before)
        before = now

ticker = gevent.spawn(tick)
for predict in (busy, blocked):
    gaps.clear()
    with ThreadedStreamer(predict, 8) as streamer:
        jobs = [gevent.spawn(streamer.predict, [i]) for i in range(9)]
        future = streamer.submit([1, 2])
        gevent.joinall(jobs)
        sizes = [job.value[0] for job in jobs]
        assert max(sizes) > 1, sizes
        assert len(future.result(10)) == 2
    assert len(gaps) > 10 and max(gaps) < 0.25, (predict, max(gaps))
print("fine")
"""


def test_under_gevent_the_hub_keeps_turning_while_the_model_computes(tmp_path):
    succeed(tmp_path, HUB)


FORK = """
import os, signal
from zstreamer import ThreadedStreamer
streamer = ThreadedStreamer(lambda batch: [2 * item for item in batch], 8)
assert streamer.predict([1]) == [2]
child = os.fork()
if not child:
    signal.alarm(20)
    os._exit(0 if streamer.predict([2]) == [4] else 1)
assert os.waitpid(child, 0)[1] == 0
assert streamer.predict([3]) == [6]
print("fine")
"""


def test_after_a_fork_it_works_in_the_parent_and_in_the_child(tmp_path):
    succeed(tmp_path, FORK)


@pytest.mark.gevent
def test_an_exception_that_cannot_be_shown_fails_its_call_and_no_other():
    def predict(batch):
        if "raise" in batch:
            raise models.Mute
        return [models.Mute() if item == "return" else item for item in batch]

    with ThreadedStreamer(predict, 8) as streamer:
        for item in ("raise", "return"):
            with pytest.raises(errors.PredictError, match=r"Mute: .*no text") as caught:
                streamer.predict(["fine", item])
            assert (caught.value.index, caught.value.type) == (1, "Mute")
            assert streamer.predict(["fine"]) == ["fine"]


@pytest.mark.gevent
@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_predict_raises_the_only_thread_of_the_model_goes_on(end):
    def predict(batch):
        if "bad" in batch:
            raise end
        return batch

    with ThreadedStreamer(predict, 8, worker_timeout=10) as streamer:
        assert streamer.predict(["good"]) == ["good"]
        with pytest.raises(errors.PredictError, match=end.__name__):
            streamer.predict(["bad"])
        assert streamer.predict(["good"]) == ["good"]


class Refusing(ManagedModel):
    """Refuses "large" and "bad": in `prepare`, in `predict`, or in the item's place."""

    def __init__(self, way):
        self.way = way

    def refuse(self, item):
        kind = errors.TooLarge if item == "large" else errors.BadRequest
        return kind("not with me") if item in ("large", "bad") else None

    def prepare(self, item):
        if self.way == "prepare" and (refusal := self.refuse(item)):
            raise refusal
        return item

    def predict(self, batch):
        refusals = [self.refuse(item) for item in batch]
        if self.way == "predict" and any(refusals):
            raise next(filter(None, refusals))
        return [refusal or item for refusal, item in zip(refusals, batch, strict=True)]


@pytest.mark.gevent
@pytest.mark.parametrize("way", ["prepare", "predict", "returned"])
def test_a_refusal_by_the_model_reaches_its_caller_as_what_it_is(way):
    with ThreadedStreamer(Refusing(way), 8) as streamer:
        good = streamer.submit(["a", "b"])
        for item, kind in (("bad", errors.BadRequest), ("large", errors.TooLarge)):
            with pytest.raises(kind, match="not with me") as caught:
                streamer.predict(["fine", item])
            assert type(caught.value) is kind
            assert caught.value.index == 1
        assert good.result(10) == ["a", "b"]


@pytest.mark.gevent
@pytest.mark.parametrize(
    "error", [errors.FatalError("gone"), RuntimeError("CUDA error: device-side assert triggered")]
)
def test_a_broken_model_is_told_to_whoever_calls_at_once(error):
    def predict(batch):
        if "poison" in batch:
            raise error
        return batch

    with ThreadedStreamer(predict, 8, worker_timeout=10) as streamer:
        assert streamer.predict(["good"]) == ["good"]
        with pytest.raises(errors.WorkerLost, match="start the process again"):
            streamer.predict(["poison"])
        start = time.monotonic()
        with pytest.raises(errors.NoWorker, match="is broken") as caught:
            streamer.predict(["good"])
        assert caught.value.final
        assert time.monotonic() - start < 5
