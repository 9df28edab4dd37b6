"""Brokers that are found by a file, and followed when they move."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.helpers.cluster import ROOT
from tests.helpers.waiting import until
from zstreamer import Client, aio
from zstreamer.config import AgentConfig, BrokerConfig
from zstreamer.errors import BrokerUnreachable
from zstreamer.system.process import Process

pytestmark = pytest.mark.timeout(120)


class Machine:
    """Brokers that announce themselves in files of one folder, and a worker that finds them."""

    def __init__(self, folder):
        self.folder = folder
        self.programs = []

    def start(self, module, config):
        program = Process(
            module, config
        )  # subprocess, under gevent, would reap all others' children
        self.programs.append(program)
        return program

    def worker(self, address):
        settings = {"target": "tests.helpers.models:double", "import_path": (str(ROOT),)}
        config = AgentConfig(broker=(address,), log_level="error", **settings)
        return self.start("zstreamer.worker.supervisor", config)

    def broker(self, host="127.0.0.1", name="broker"):
        """Start a broker on free ports; returns it once its file is there."""
        path = self.folder / name
        before = path.read_text() if path.exists() else ""
        config = BrokerConfig(
            client_address=f"tcp://{host}:*",
            worker_address=f"tcp://{host}:*",
            http_port=0,
            address_file=str(path),
            log_level="error",
        )
        broker = self.start("zstreamer.broker", config)
        until(lambda: path.exists() and path.read_text() != before)
        return broker

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in self.programs:
            program.kill()
            program.wait(10)


@pytest.fixture
def machine(tmp_path):
    with Machine(tmp_path) as machine:
        yield machine


@pytest.mark.gevent
def test_a_broker_that_moves_is_followed_under_load(machine):
    address = f"file:{machine.folder}/broker"
    first = machine.broker()
    machine.worker(address)
    stop = threading.Event()
    answered = [0]

    def calls(number):
        while not stop.is_set():
            assert client.predict([number, 1]) == [2 * number, 2]
            answered[0] += 1

    with Client(address, timeout=20.0, connect_timeout=20.0) as client:
        client.wait_ready(30)
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(calls, number) for number in range(8)]
            for gone in (first.terminate, None):
                until(lambda goal=answered[0] + 50: answered[0] >= goal)
                if gone:  # it drains: its file goes first, and open calls are answered
                    gone()
                    assert first.wait(30) == 0
                    first = machine.broker("127.0.0.2")
                else:  # it stands still, as where its machine is gone, and another takes its place
                    os.kill(first.pid, signal.SIGSTOP)
                    machine.broker("127.0.0.3")
                goal = answered[0] + 100
                until(lambda goal=goal: answered[0] >= goal, 10)  # 2 s, and a busy machine
            stop.set()
            for future in futures:
                future.result(30)


@pytest.mark.asyncio
async def test_asyncio_finds_a_broker_that_is_not_there_yet(machine):
    address = f"file:{machine.folder}/*"
    async with aio.Client(address, timeout=30.0, connect_timeout=20.0) as client:
        call = client.submit([21])
        machine.broker(name="late")
        machine.worker(address)
        assert await call == [42]


def test_a_file_that_never_comes_is_unreachable_within_the_connect_timeout(tmp_path):
    with Client(f"file:{tmp_path}/broker", connect_timeout=0.5) as client:
        start = time.monotonic()
        with pytest.raises(BrokerUnreachable, match="No such file"):
            client.predict([1])
        assert time.monotonic() - start < 10.0


def test_the_command_lists_the_brokers(machine):
    machine.broker(name="one")
    (machine.folder / "two").write_text('{"clients": "tcp://127.0.0.9:1", "workers": "ipc://x"}')
    command = [sys.executable, "-m", "zstreamer", "addresses", "--connect-timeout", "0.3"]
    command += ["--address", f"file:{machine.folder}/*"]
    run = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(command, check=False, **run)
    assert done.returncode == 0, done.stderr
    up, down = sorted(done.stdout.splitlines(), key=lambda line: "127.0.0.9" in line)
    assert up.startswith("tcp://127.0.0.1:") and up.endswith("  up")
    assert "no broker answered" in down
