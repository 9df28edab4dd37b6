"""Programs of the older library, service-streamer, run with their import changed only."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.helpers import models
from tests.helpers.cluster import free_port
from tests.helpers.program import ROOT, running
from tests.helpers.waiting import descendants
from zstreamer import (
    ManagedModel,
    RedisStreamer,
    RedisWorker,
    Streamer,
    ThreadedStreamer,
    errors,
    run_redis_workers_forever,
)
from zstreamer.config import BrokerConfig
from zstreamer.local.redis_names import Broker
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import Process


class Doubler(ManagedModel):
    """What the older library's users write."""

    def init_model(self, factor=2):
        self.model = lambda batch: [factor * each for each in batch]

    def predict(self, batch):
        return self.model(batch)


@pytest.fixture(scope="module")
def redis_broker():
    """What stands in the place of a Redis: a broker at a port of one's own, and the next."""
    while True:
        port = free_port()
        config = BrokerConfig(
            port=port, worker_port=port + 1, http_port=0, model_grace=30.0, log_level="warning"
        )
        with Process("zstreamer.broker", config) as broker:
            if broker.wait(0.5) is None:
                yield f"localhost:{port}"
                return


@pytest.fixture
def serve_in_thread():
    """Run workers as the older library's tests do, in a thread; stopped here after the test."""
    before = set(descendants(os.getpid()))
    threads = []

    def serve(*args, **kwargs):
        arguments = {"target": run_redis_workers_forever, "args": args, "kwargs": kwargs}
        threads.append(threading.Thread(**arguments, daemon=True))
        threads[-1].start()

    yield serve
    for pid in set(descendants(os.getpid())) - before:
        if psutil.Process(pid).ppid() == os.getpid():
            os.kill(pid, signal.SIGTERM)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


# What the older library tests of itself


def test_a_threaded_streamer_answers_one_and_many():
    with ThreadedStreamer(models.double, batch_size=8) as streamer:
        assert streamer.predict([4]) == [8]
        assert streamer.predict([1, 2] * 8) == [2, 4] * 8


def test_futures_bring_what_predict_would():
    with ThreadedStreamer(models.double, batch_size=8) as streamer:
        futures = [streamer.submit([each]) for each in range(8)]
        assert [each.result() for each in futures] == [[2 * each] for each in range(8)]


def test_a_managed_model_works_by_itself():
    model = Doubler()
    assert model.model is None
    model.init_model()
    assert model.predict([1, 2]) == [2, 4]


def test_a_streamer_of_several_workers_answers_one_and_many():
    with Streamer(models.double, batch_size=8, worker_num=4) as streamer:
        assert streamer.predict([4]) == [8]
        assert streamer.predict([1, 2] * 8) == [2, 4] * 8


def test_redis_workers_answer_a_redis_streamer(redis_broker, serve_in_thread):
    serve_in_thread(Doubler, 8, 0.1, 2, (0, 3), redis_broker, "")
    with RedisStreamer(redis_broker) as streamer:
        assert streamer.predict([4]) == [8]
        assert streamer.predict([1, 2] * 8) == [2, 4] * 8
        assert streamer.submit([5]).result(20) == [10]


def test_prefixes_keep_models_apart(redis_broker, serve_in_thread):
    for prefix, factor in (("channel_1", 3), ("channel_2", 5)):
        serve_in_thread(
            Doubler, 8, redis_broker=redis_broker, prefix=prefix, model_init_args=[factor]
        )
    streamers = [RedisStreamer(redis_broker, prefix=f"channel_{i}") for i in (1, 2)]
    assert [each.predict([1]) for each in streamers] == [[3], [5]]
    assert [each.prefix for each in streamers] == ["channel_1", "channel_2"]
    for each in streamers:
        each.close()


def test_a_redis_worker_runs_a_batch_here():
    assert RedisWorker(models.double, batch_size=8).model_predict([1, 2]) == [2, 4]
    worker = RedisWorker(Doubler, 8, model_init_args=[7])
    assert worker.model_predict([1]) == [7]


# The Redis names


WORKERS = """
import sys
from zstreamer import ManagedModel, RedisWorker, run_redis_workers_forever

class Tripler(ManagedModel):
    def init_model(self, factor, plus=0):
        self.factor, self.plus = factor, plus

    def predict(self, batch):
        return [[self.factor * each + self.plus, self.gpu_id] for each in batch]

if __name__ == "__main__":
    broker, way = sys.argv[1:]
    if way == "worker":
        RedisWorker(
            Tripler, 8, redis_broker=broker, prefix=way, model_init_args=[3],
            model_init_kwargs={"plus": 1},
        ).run_forever(2)
    else:
        run_redis_workers_forever(
            Tripler, 8, 0.1, 1, [2], broker, way, way, [3], {"plus": 1}
        )
    print("fine", flush=True)
"""


@pytest.mark.parametrize("way", ["spawn", "forkserver", "fork", "worker"])
def test_a_program_that_serves_drains_when_it_is_told_to_stop(tmp_path, redis_broker, way):
    with (
        running(tmp_path, WORKERS, redis_broker, way) as program,
        RedisStreamer(redis_broker, way) as streamer,
    ):
        assert streamer.predict([5]) == [[16, 2]]
        program.send_signal(signal.SIGTERM)
        assert program.wait(20) == 0
        assert program.stdout.read().split() == ["fine"]


def test_workers_whose_model_cannot_start_end_with_its_exit_code(redis_broker):
    with pytest.raises(SystemExit) as ended:
        run_redis_workers_forever(models.Broken, 8, redis_broker=redis_broker, prefix="broken")
    assert ended.value.code == ExitCode.MODEL


@pytest.mark.parametrize(
    ("redis_broker", "addresses"),
    [
        ("localhost:6379", ("tcp://localhost:7787", "tcp://localhost:7788")),
        ("10.0.0.5", ("tcp://10.0.0.5:7787", "tcp://10.0.0.5:7788")),
        ("redis://ml.example:6379", ("tcp://ml.example:7787", "tcp://ml.example:7788")),
        ("10.0.0.5:9000", ("tcp://10.0.0.5:9000", "tcp://10.0.0.5:9001")),
        ("[::1]:6379", ("tcp://[::1]:7787", "tcp://[::1]:7788")),
    ],
)
def test_a_redis_stands_for_a_broker(redis_broker, addresses):
    assert Broker.of(redis_broker, "") == (*addresses, "default")
    assert Broker.of(redis_broker, "bert").model == "bert"


@pytest.mark.parametrize("bad", ["", "localhost:", "a b:6379", "host:0", "host:65535", "h:1:2"])
def test_what_is_no_host_and_port_is_refused(bad):
    for make in (RedisStreamer, lambda bad: RedisWorker(Doubler, 8, redis_broker=bad)):
        with pytest.raises(ValueError, match="redis_broker must be"):
            make(bad)


def test_one_line_says_what_stands_for_what_and_how_to_write_it(caplog):
    for _ in range(2):
        RedisStreamer("10.0.0.5:6379", "bert").close()
    [record] = [each for each in caplog.records if "10.0.0.5" in each.getMessage()]
    line = record.getMessage()
    assert "redis_broker='10.0.0.5:6379' prefix='bert'" in line
    assert 'Client("tcp://10.0.0.5:7787", model="bert")' in line


def test_where_nothing_answers_the_error_names_the_broker():
    with RedisStreamer(f"127.0.0.1:{free_port()}", worker_timeout=10) as streamer:
        with pytest.raises(errors.BrokerUnreachable, match="zstreamer broker"):
            streamer.predict([1])
        with pytest.raises(NotImplementedError, match="programs of their own"):
            streamer.destroy_workers()


# Names and what is seen


def test_all_names_are_where_they_were():
    text = """
import zstreamer
from zstreamer.service_streamer import (
    Future, ManagedModel, RedisStreamer, RedisWorker, Streamer, ThreadedStreamer, WORKER_TIMEOUT,
    run_redis_workers_forever,
)
from zstreamer.managed_model import ManagedModel as Again
assert Again is ManagedModel is zstreamer.ManagedModel and WORKER_TIMEOUT == 20
for name in ("RedisStreamer", "RedisWorker", "run_redis_workers_forever", "Streamer"):
    assert hasattr(zstreamer, name), name
assert zstreamer.RedisStreamer is RedisStreamer
"""
    subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True)


def test_the_package_loads_nothing_for_the_redis_names_before_they_are_asked_for():
    text = (
        "import sys, zstreamer; assert not any('zstreamer.local' in each for each in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True)


def test_a_threaded_streamer_logs_each_batch_at_debug_level(caplog):
    with caplog.at_level(logging.DEBUG, "zstreamer"):
        with ThreadedStreamer(models.double, 8) as streamer:
            streamer.predict([1, 2, 3])
    assert any(each.getMessage().startswith("batch size=3 ") for each in caplog.records)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_a_streamers_workers_log_each_batch_where_the_program_logs_at_debug_level(
    capfd, caplog, level
):
    with caplog.at_level(level, "zstreamer"), Streamer(models.double, 8) as streamer:
        streamer.predict([1, 2, 3])
    assert (" batch size=3 " in capfd.readouterr().err) is (level == logging.DEBUG)


def test_a_streamer_tells_its_status():
    with Streamer(models.double, 8, worker_num=2, wait_for_worker_ready=True) as streamer:
        streamer.predict([1, 2, 3])
        [model] = streamer.status()["models"].values()
        assert len(model["workers"]) == 2
        command = [sys.executable, "-m", "zstreamer", "status", "--address", streamer.address]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "default" in shown
    with pytest.raises(errors.Cancelled):
        streamer.status()
    assert not Path(streamer.address.removeprefix("ipc://")).exists()
