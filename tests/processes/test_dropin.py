"""Programs of the older library, service-streamer, run with their import changed only."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
import zmq
from PIL import Image

from tests.helpers import models
from tests.helpers.cluster import Cluster, free_port
from tests.helpers.marks import needs_torch
from tests.helpers.program import ROOT, running, succeed
from tests.helpers.waiting import descendants, until
from zstreamer import (
    ManagedModel,
    RedisStreamer,
    RedisWorker,
    Streamer,
    ThreadedStreamer,
    codec,
    errors,
    pickled,
    run_redis_workers_forever,
)
from zstreamer.client.status import fetch
from zstreamer.config import AgentConfig, BrokerConfig
from zstreamer.local.redis_names import Broker
from zstreamer.setting import ConfigError
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import Process

if find_spec("torch"):  # no CPU build of it for some Pythons
    import torch


class Doubler(ManagedModel):
    """What the older library's users write."""

    def init_model(self, factor=2):
        self.model = lambda batch: [factor * each for each in batch]

    def predict(self, batch):
        return self.model(batch)


def echo_with_torch(batch):
    """Echoes in a process that has imported torch, as this module does."""
    return list(batch)


@pytest.fixture(scope="module")
def redis_broker():
    """What stands in the place of a Redis: a broker at a port of one's own, and the next."""
    while True:
        port = free_port()
        config = BrokerConfig(
            port=port, worker_port=port + 1, http_port=0, model_grace=0.1, log_level="warning"
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


def test_futures_wait_for_workers_that_are_still_to_come(redis_broker, serve_in_thread):
    clients = Broker.of(redis_broker, "").clients
    until(lambda: fetch(clients)["broker"]["uptime"] > BrokerConfig().model_grace)
    with RedisStreamer(redis_broker, "late") as streamer:
        futures = [streamer.submit([each]) for each in range(20)]
        given_up = streamer.submit([1])
        with pytest.raises(errors.ModelNotFound):
            streamer.submit([1], timeout=0.3).result(10)
        with pytest.raises(TypeError, match="wrap it"):
            streamer.submit("text")
        assert given_up.cancel()
        serve_in_thread(Doubler, 8, redis_broker=redis_broker, prefix="late")
        assert [each.result(20) for each in futures] == [[2 * each] for each in range(20)]


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
        assert streamer.predict([1, 2, 3]) == [2, 4, 6]
        until(lambda: len(streamer.status()["models"]["default"]["workers"]) == 2)
        command = [sys.executable, "-m", "zstreamer", "status", "--address", streamer.address]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "default" in shown
    with pytest.raises(errors.Cancelled):
        streamer.status()
    assert not Path(streamer.address.removeprefix("ipc://")).exists()


# What passes through a Streamer


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Reading:
    when: datetime
    values: set[int]


READING = Reading(datetime(2024, 2, 29, 12, 30), {1, 2})  # without a zone
ANYTHING = [
    READING,
    (1, (2,)),
    Point(1, 2),
    {("a", "b"): {3}},
    {1, 2},
    frozenset({1}),
    Decimal("1.50"),
    date(2024, 2, 29),
    READING.when,
    datetime(2024, 2, 29, 12, 30, tzinfo=timezone(timedelta(hours=2))),
    uuid.UUID(int=7),
    2**100,
    "\udc80",
    1j,
    range(3),
    True,
    1.5,
    np.float32(0.5),
    [None, b"bytes", {"text": "text"}],
]


@pytest.fixture(scope="module")
def echo():
    with Streamer(models.echo, 16) as streamer:
        yield streamer


def test_anything_that_can_be_pickled_passes_through_a_streamer_as_it_is(echo):
    for item, output in zip(ANYTHING, echo.predict(ANYTHING), strict=True):
        assert (output, type(output)) == (item, type(item))


def test_odd_arrays_and_images_pass_through_a_streamer(echo):
    image = Image.new("RGB", (3, 2), "red")
    masked = np.ma.array([1.0, 2.0], mask=[0, 1])
    objects = np.array([{1}, None], dtype=object)
    [image_again, masked_again, objects_again] = echo.predict([image, masked, objects])
    assert (image_again.size, image_again.tobytes()) == (image.size, image.tobytes())
    assert masked_again.mask.tolist() == [False, True]
    assert objects_again.tolist() == objects.tolist()


@needs_torch
def test_tensors_pass_through_a_streamer(echo):
    whole = torch.arange(1000.0).reshape(10, 100)
    tensors = [
        *whole,
        torch.ones(2, dtype=torch.bfloat16),
        torch.tensor(1),
        torch.zeros(0, 3),
        torch.ones(2, requires_grad=True),
        torch.nn.Parameter(torch.ones(2)),
        torch.eye(2).to_sparse(),
    ]
    for tensor, again in zip(tensors, echo.predict(tensors), strict=True):
        assert (type(again), again.dtype, again.layout) == (
            type(tensor),
            tensor.dtype,
            tensor.layout,
        )
        assert again.requires_grad == tensor.requires_grad
        assert torch.equal(again.to_dense(), tensor.to_dense())


@needs_torch
def test_a_row_of_a_large_tensor_is_pickled_without_the_others():
    whole = torch.zeros(10, 100_000)
    [payload] = pickled.encode_all([{"row": whole[0], "set": {1}}])
    assert len(payload) < 2 * whole[0].nbytes


def test_what_cannot_be_pickled_is_refused_by_name(echo):
    with pytest.raises(
        errors.BadRequest, match=r"items\[1\] is lock, which cannot be pickled"
    ) as told:
        echo.predict([1, threading.Lock()])
    assert told.value.index == 1


ITEMS_OF_MAIN = """
from dataclasses import dataclass
from tests.helpers import models
from zstreamer import Streamer

@dataclass
class Item:
    value: int

if __name__ == "__main__":
    with Streamer(models.echo, 8) as streamer:
        [again] = streamer.predict([Item(3)])
        assert type(again) is Item and again == Item(3)
    print("fine")
"""


def test_items_may_be_of_a_class_of_the_main_module(tmp_path):
    succeed(tmp_path, ITEMS_OF_MAIN)


class Trap:
    """Its pickle makes a file where it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")  # what an attacker calls


def send_pickles(client):
    """Have a client send and read pickles, as no client of a network does by itself."""
    client._settings.codec = pickled.private()
    return client


def test_a_networked_worker_refuses_a_pickle_and_runs_nothing(tmp_path):
    path = tmp_path / "trapped"
    with Cluster(tcp=True) as cluster, cluster.serving("echo") as client:
        for item in (Trap(path), [Trap(path)], {"deep": [Trap(path)]}):
            with pytest.raises(errors.BadRequest, match="unknown extension type 112"):
                send_pickles(client).predict([item])
        raw = pickle.dumps(Trap(path))
        call = client._settings.call([1], None, None, 0, True, False)
        call.payloads[0] = raw
        client._driver().wait(call)
        assert isinstance(call.first_error(), errors.BadRequest)
        assert client.predict(["after"]) == ["after"]
    assert not path.exists()


def test_redis_workers_refuse_a_pickle_too(tmp_path, redis_broker, serve_in_thread):
    path = tmp_path / "trapped"
    serve_in_thread(models.echo, 8, redis_broker=redis_broker, prefix="trap")
    with RedisStreamer(redis_broker, "trap") as streamer:
        assert streamer.predict([1]) == [1]
        send_pickles(streamer._client)
        with pytest.raises(errors.BadRequest, match="unknown extension type 112"):
            streamer.predict([Trap(path)])
    assert not path.exists()


def test_a_broker_of_a_network_opens_no_pickle(tmp_path):
    path = tmp_path / "trapped"
    with Cluster(tcp=True) as cluster, cluster.serving("echo") as client:
        for address in (cluster.address, cluster.worker_address):
            with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
                peer.linger = 1000
                peer.connect(address)
                peer.send_multipart([pickle.dumps(Trap(path))] * 2)
        assert client.predict(["after"]) == ["after"]
    assert not path.exists()


def test_a_client_of_a_network_refuses_a_workers_pickle(tmp_path):
    path = tmp_path / "trapped"
    [payload] = pickled.encode_all([Trap(path)])
    with pytest.raises(errors.BadRequest, match="unknown extension type 112"):
        codec.decode(payload)
    assert not path.exists()


def test_the_same_pickle_runs_in_a_streamers_own_worker(tmp_path, echo):
    """So the tests above would notice."""
    path = tmp_path / "trapped"
    with pytest.raises(errors.PredictError):  # it echoes an open file, which cannot be pickled
        echo.predict([Trap(path)])
    assert path.exists()


def test_only_an_owner_on_private_sockets_makes_a_worker_open_pickles():
    with pytest.raises(ConfigError, match="private"):
        AgentConfig(broker=("tcp://10.0.0.5:7788",), private=True)
    with pytest.raises(ConfigError, match="private"):
        AgentConfig(broker=("ipc:///tmp/workers", "tcp://10.0.0.5:7788"), private=True)
    assert AgentConfig(broker=("ipc:///tmp/workers",)).private is False


# A Streamer and its model in one module


APP = """
from zstreamer import ManagedModel, Streamer

class Model(ManagedModel):
    def predict(self, batch):
        return [2 * each for each in batch]

streamer = Streamer(Model, 8)

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(streamer.predict([21])).encode()]
"""


@pytest.mark.parametrize("flags", [[], ["--preload"]])
def test_gunicorn_serves_a_module_with_a_streamer_and_its_model(tmp_path, flags):
    (tmp_path / "app.py").write_text(APP)
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "-b", address, "-w", "2", *flags, "app:app"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as server:
        try:

            def answer():
                with suppress(OSError), urllib.request.urlopen(f"http://{address}") as response:
                    return response.read()

            assert [until(answer, 30) for _ in range(4)] == [b"[42]"] * 4
        finally:
            server.terminate()


# fork and CUDA


DRIVER = "int cuDeviceGetCount(int *count) { *count = 1; return STATE; }"
"""What the driver says of a process: 3 before it was initialized, 0 after."""


@pytest.mark.parametrize(("state", "used"), [(3, False), (0, True)])
def test_fork_with_devices_is_refused_where_cuda_is_in_use(tmp_path, state, used):
    (tmp_path / "driver.c").write_text(DRIVER)
    library = tmp_path / "libcuda.so.1"
    build = ["cc", "-shared", f"-DSTATE={state}", "-Wl,-soname,libcuda.so.1", "-o", library]
    subprocess.run([*build, tmp_path / "driver.c"], check=True)
    text = f"""
import ctypes
from tests.helpers import models
from zstreamer import Streamer
ctypes.CDLL({str(library)!r})
try:
    with Streamer(models.Device, 4, cuda_devices=[3], mp_start_method="fork") as streamer:
        [fact] = streamer.predict([None])
        assert fact["gpu_id"] == 3
    used = False
except ValueError as error:
    assert "has used CUDA already" in str(error)
    used = True
print("fine" if used is {used} else "wrong")
"""
    succeed(tmp_path, text)


# The page


PAGE = ROOT / "docs" / "coming_from_service_streamer.md"

ROWS = {
    "from service_streamer import …": "all_names_are_where_they_were",
    "service_streamer.service_streamer": "all_names_are_where_they_were",
    "ThreadedStreamer(": "a_threaded_streamer_answers_one_and_many",
    "Streamer(model": "a_streamer_of_several_workers_answers_one_and_many",
    "cuda_devices": "devices_are_what_the_older_library_took",
    "model_init_args": "prefixes_keep_models_apart",
    "wait_for_worker_ready": "waiting_for_workers_waits",
    'mp_start_method="spawn"': "a_program_that_serves_drains_when_it_is_told_to_stop",
    'mp_start_method="forkserver"': "a_program_that_serves_drains_when_it_is_told_to_stop",
    'mp_start_method="fork"': "fork_with_devices_is_refused_where_cuda_is_in_use",
    "predict(batch)": "a_batch_is_whatever_has_an_order",
    "submit(batch)": "futures_bring_what_predict_would",
    "destroy_workers()": "destroy_workers_lets_the_running_batch_be_answered",
    "ManagedModel": "a_managed_model_works_by_itself",
    "items and outputs of a `Streamer`": "anything_that_can_be_pickled_passes_through_a_streamer",
    "items and outputs of a `RedisStreamer`": "what_passes_through_a_redis_streamer",
    "RedisStreamer(": "redis_workers_answer_a_redis_streamer",
    "RedisStreamer.destroy_workers()": "where_nothing_answers_the_error_names_the_broker",
    "RedisWorker(": "a_redis_worker_runs_a_batch_here",
    "run_redis_workers_forever(": "a_program_that_serves_drains_when_it_is_told_to_stop",
    "a log line for each batch": "a_threaded_streamer_logs_each_batch_at_debug_level",
    "a `Streamer` in a module": "gunicorn_serves_a_module_with_a_streamer_and_its_model",
}
"""The start of each row of the page's table, and the test that runs it."""


def test_each_row_of_the_page_is_run_by_a_test():
    table = PAGE.read_text().partition("## Every name")[2].partition("\n## ")[0]
    rows = [line[2:].lstrip("`") for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(ROWS)
    for row, (start, test) in zip(rows, ROWS.items(), strict=True):
        assert row.startswith(start)
        assert any(name.startswith(f"test_{test}") for name in globals()), test


@pytest.mark.parametrize(
    ("devices", "gpu_id"),
    [((0, 3), 0), (np.array([3]), 3), ([np.int64(3)], 3), (["GPU-8"], "GPU-8")],
)
def test_devices_are_what_the_older_library_took(devices, gpu_id):
    with Streamer(models.Device, 1, cuda_devices=devices) as streamer:
        [fact] = streamer.predict([None])
    assert (fact["at import"], fact["gpu_id"]) == (str(gpu_id), gpu_id)
    for bad in ("-1", "0,1"):
        with pytest.raises(ValueError, match="cuda_devices"):
            Streamer(models.double, 1, cuda_devices=bad)


def test_waiting_for_workers_waits():
    with Streamer(models.double, 4, wait_for_worker_ready=True) as streamer:
        assert streamer.status()["models"]["default"]["workers"][0]["state"] == "warm"
        streamer._wait_for_worker_ready()
    with pytest.raises(errors.NoWorker, match="the weights are missing"):
        Streamer(models.Broken, 4, wait_for_worker_ready=True)


def test_a_batch_is_whatever_has_an_order(echo):
    array = np.arange(6).reshape(3, 2)
    assert [row.tolist() for row in echo.predict(array)] == array.tolist()
    for batch in (deque([1, 2]), {1: "a", 2: "b"}.keys(), (1, 2), {"a": 1, "b": 2}.values()):
        assert echo.predict(batch) == [1, 2]
    for one in ("text", {"a": 1}, {1, 2}):
        with pytest.raises(TypeError, match="items must be a list"):
            echo.predict(one)


@needs_torch
def test_a_tensor_is_a_batch_of_its_rows(echo):
    array = np.arange(6).reshape(3, 2)
    assert [row.tolist() for row in echo.predict(torch.from_numpy(array))] == array.tolist()


def test_destroy_workers_lets_the_running_batch_be_answered():
    streamer = Streamer(models.Sleeper, 8, model_init_args=[0.5], wait_for_worker_ready=True)
    future = streamer.submit([1])
    until(lambda: streamer.status()["models"]["default"]["running"] == 1)
    streamer.destroy_workers()
    assert future.result(0) == [1]


def test_what_passes_through_a_redis_streamer(redis_broker, serve_in_thread):
    serve_in_thread(echo_with_torch, 8, redis_broker=redis_broker, prefix="echo")
    as_it_is = [
        *("text", b"bytes", 1, 0.5, None, [1], {"a": 1}),
        *(READING.when, READING.when.date(), Decimal("1.50"), uuid.UUID(int=7)),
    ]
    with RedisStreamer(redis_broker, "echo") as streamer:
        assert streamer.predict(as_it_is) == as_it_is
        [array] = streamer.predict([np.arange(2)])
        assert array.tolist() == [0, 1]
        if find_spec("torch"):
            tensor = torch.ones(2, dtype=torch.bfloat16)
            [again] = streamer.predict([tensor])
            assert torch.equal(again, tensor)
        assert streamer.predict([(1, 2), Point(1, 2)]) == [[1, 2], [1, 2]]
        for refused in ({1, 2}, READING, Image.new("L", (1, 1))):
            with pytest.raises(errors.BadRequest, match=r"items\[0\].* is .*cannot be sent"):
                streamer.predict([refused])
