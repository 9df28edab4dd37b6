"""A broker and workers as processes of their own, for tests of the whole."""

import contextlib
import os
import random
import shutil
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from tests.helpers.waiting import descendants, until
from zstreamer import Client
from zstreamer.client.status import fetch
from zstreamer.config import AgentConfig, BrokerConfig
from zstreamer.errors import BrokerUnreachable
from zstreamer.system.process import Process

ROOT = Path(__file__).parents[2]


PORTS = tuple(map(int, os.environ.get("TEST_PORTS", "20000-32000").split("-")))
"""Ports of tests: processes that run tests beside each other have different ones."""

_GIVEN = set()


def free_port(count=1):
    """The first of so many free ports in a row; never one twice.

    They are below those that the system gives to outgoing connections.
    """
    while True:
        first = random.SystemRandom().randrange(*PORTS)
        ports = range(first, first + count)
        if not _GIVEN.intersection(ports) and all(map(_is_free, ports)):
            _GIVEN.update(ports)
            return first


def _is_free(port):
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("0.0.0.0", port))
        return True
    return False


class Gated:
    """The other side of `tests.helpers.models.Gate`."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def open(self):
        (self.folder / "open").touch()

    def shut(self):
        """Shut it again and forget what has passed."""
        for name in ("open", "begun"):
            (self.folder / name).unlink(missing_ok=True)

    @property
    def begun(self):
        path = self.folder / "begun"
        return path.read_text().split() if path.exists() else []

    def wait_begun(self, item):
        until(lambda: str(item) in self.begun)


class Cluster:
    """A private broker, over Unix sockets or loopback TCP, and workers that come and go.

    settings: for the broker, as in `BrokerConfig`.
    """

    def __init__(self, *, tcp=False, **settings):
        self.folder = Path(tempfile.mkdtemp(prefix="zst-"))
        if tcp:
            self.address = f"tcp://127.0.0.1:{free_port()}"
            self.worker_address = f"tcp://127.0.0.1:{free_port()}"
        else:
            self.address = f"ipc://{self.folder}/c"
            self.worker_address = f"ipc://{self.folder}/w"
        self._settings = {"http_port": 0, "log_level": "warning", **settings}
        self._stack = contextlib.ExitStack()
        self._names = count(1)
        self._gated = None
        self._workers = []
        self.broker = None
        self.start_broker()

    def start_broker(self):
        self.broker = Process(
            "zstreamer.broker",
            BrokerConfig(
                client_address=self.address, worker_address=self.worker_address, **self._settings
            ),
        )

    def worker(self, target, *, model="default", **settings):
        """Start `num` workers of a model of the tests; returns their supervisor's process."""
        config = AgentConfig(
            model=model,
            **{
                "broker": (self.worker_address,),
                "target": target if ":" in target else f"tests.helpers.models:{target}",
                "log_level": "error",
                "import_path": (str(ROOT),),
                **settings,
            },
        )
        worker = self._stack.enter_context(Process("zstreamer.worker.supervisor", config))
        self._workers.append(worker)
        return worker

    @contextlib.contextmanager
    def serving(self, target, **settings):
        """A client of a warm worker that lives as long as the block, under a name of its own."""
        model = f"{target}-{next(self._names)}"
        with self.worker(target, model=model, **settings), self.client(model=model) as client:
            client.wait_ready(30)
            yield client

    @contextlib.contextmanager
    def gate(self):
        """A client of the model `gate`, which runs single items, and the gate's other side."""
        if self._gated is None:
            self._gated = Gated(tempfile.mkdtemp(dir=self.folder))
            kwargs = {"folder": str(self._gated.folder)}
            self.worker("Gate", model="gate", batch_size=1, init_kwargs=kwargs)
        self._gated.shut()
        # The gate makes the model look slow, and a broker refuses what it expects to be late.
        with self.client(model="gate", timeout=1000) as client:
            client.wait_ready(30)
            try:
                yield client, self._gated
            finally:
                self._gated.open()
                until(lambda: self.open_items("gate") == 0)

    def client(self, **settings):
        patient = {"connect_timeout": 20.0, **settings}  # a busy machine starts a broker slowly
        return self._stack.enter_context(Client(self.address, **patient))

    def status(self):
        """The broker's snapshot."""
        return fetch(self.address)

    def model(self, name="default"):
        """What the broker knows of one model; empty where it knows none."""
        return self.status()["models"].get(name, {})

    def at_workers(self, model):
        """How many of a model's items the workers have, running or not."""
        return sum(w["waiting"] + w["running"] for w in self.model(model)["workers"])

    def open_items(self, model):
        """How many items of a model have no answer yet."""
        return self.at_workers(model) + self.model(model)["queued"]

    def wait_up(self):
        """Wait until the broker answers."""

        def answers():
            with contextlib.suppress(BrokerUnreachable):
                return fetch(self.address, 1.0)

        return until(answers)

    def wait_warm(self, number, model="default"):
        """Wait until so many workers of the model are warm."""

        def warm():
            workers = self.model(model).get("workers", [])
            return sum(each["state"] == "warm" for each in workers) == number

        until(warm, 30)

    def close(self):
        with ThreadPoolExecutor() as pool:  # so that they end together
            list(pool.map(Process.close, self._workers))
        self._stack.close()
        self.broker.terminate()  # it heeds a signal at once, and looks for its owner twice a second
        self.broker.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def agents(supervisor):
    """Process ids of a supervisor's agents."""
    found = set(descendants(supervisor.pid))
    return sorted(found - {pid for agent in found for pid in descendants(agent)})


def children(supervisor):
    """Process ids of the processes that hold the models."""
    return sorted(pid for agent in agents(supervisor) for pid in descendants(agent))
