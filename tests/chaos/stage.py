"""Where a row happens: a cluster, named workers whose processes are known, and load."""

import contextlib
import os
import shutil
import signal
import tempfile
import time

from tests.chaos.load import Load
from tests.chaos.model import executions, starts
from tests.chaos.outcome import Outcome
from tests.chaos.web import WebServer
from tests.helpers.cluster import Cluster
from tests.helpers.waiting import until
from zstreamer.errors import BrokerUnreachable

BATCH = 8
BETA = 0.02
ALPHA = 0.001
BATCH_TIME = BETA + ALPHA * BATCH


class Worker:
    """A supervisor of one worker, and the processes below it as the model tells of them."""

    def __init__(self, stage, name, settings):
        self.name = name
        self._stage = stage
        self._settings = settings
        self.supervisor = None
        self.start()

    def start(self):
        """Start the supervisor (again)."""
        self.supervisor = self._stage.clusters[0].worker(**self._settings)

    @property
    def starts(self):
        """All starts of its model: (agent's pid, own pid)."""
        return [pids for name, *pids in starts(self._stage.folder) if name == self.name]

    @property
    def agent(self):
        return self.starts[-1][0]

    @property
    def child(self):
        return self.starts[-1][1]

    def is_warm(self):
        """Whether every broker knows it as warm, with the latest agent."""
        found = self.starts
        return bool(found) and all(
            any(w["pid"] == found[-1][0] and w["state"] == "warm" for w in workers)
            for workers in self._stage.known_workers()
        )

    def wait_warm(self, after=0):
        """Wait until a start after the first so many is warm everywhere."""
        # A model that has started was preceded by the news that its predecessor is gone.
        until(lambda: len(self.starts) > after and self.is_warm(), 40, 0.02)

    def kill(self, which="child"):
        """Kill one of its processes and wait for the successor."""
        before = len(self.starts)
        with contextlib.suppress(ProcessLookupError):
            os.kill(getattr(self, which), signal.SIGKILL)
        self.wait_warm(before)

    @contextlib.contextmanager
    def frozen(self):
        """Its agent stands still for as long as the block."""
        agent = self.agent
        os.kill(agent, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(agent, signal.SIGCONT)


class Stage:
    """Brokers, workers and load of one row; all of it ends with the block.

    Args:
        row: its name.
        times: how many faults there will be.
        options: as in `rows.Options`.
        brokers: how many.
        settings: for `Cluster`.
    """

    def __init__(self, row, times, options, *, brokers=1, **settings):
        self.outcome = Outcome(row, times)
        self._options = options
        self.folder = tempfile.mkdtemp(prefix="chaos-")
        self._stack = contextlib.ExitStack()
        self.clusters = [self._stack.enter_context(Cluster(**settings)) for _ in range(brokers)]
        self.workers = []
        self._web = []
        self._since = time.monotonic()

    @property
    def address(self):
        """Of all brokers, for clients."""
        return ",".join(cluster.address for cluster in self.clusters)

    def worker(self, target="Timed", *, broker=None, batch_size=BATCH, model="default", **kwargs):
        """Start one worker of tests.chaos.model:target; `kwargs` are for its init_model."""
        name = f"w{len(self.workers)}"
        if target == "Timed":
            kwargs = {"beta": BETA, "alpha": ALPHA, **kwargs}
        settings = {
            "target": f"tests.chaos.model:{target}",
            "model": model,
            "broker": broker or tuple(cluster.worker_address for cluster in self.clusters),
            "batch_size": batch_size,
            "init_kwargs": {"folder": self.folder, "name": name, **kwargs},
            "log_level": "error",
        }
        worker = Worker(self, name, settings)
        self.workers.append(worker)
        return worker

    def crew(self, number=2, **settings):
        """Start so many workers and wait until all are warm."""
        crew = [self.worker(**settings) for _ in range(number)]
        self.wait_warm()
        return crew

    def wait_warm(self):
        """Wait until all workers are warm at all brokers."""
        for worker in self.workers:
            worker.wait_warm()

    def load(self, address=None, **settings):
        """Return load for a `with` statement."""
        settings.setdefault("gevent", self._options.gevent)
        address = address or self.address
        if self._options.gunicorn:
            server = WebServer(address, settings.get("model", "default"))
            self._web.append(self._stack.enter_context(server))
            address = server.url
        return Load(address, **settings)

    def known_workers(self):
        """For each broker the workers of all its models; none where it does not answer."""
        for cluster in self.clusters:
            models = {}
            with contextlib.suppress(BrokerUnreachable):
                models = cluster.status()["models"]
            yield [worker for model in models.values() for worker in model["workers"]]

    def counts(self):
        """What the first broker has counted."""
        return self.clusters[0].status()["broker"]["counts"]

    def run_twice(self):
        """How many items were begun more than once."""
        return sum(count > 1 for count in executions(self.folder).values())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.outcome.seconds = time.monotonic() - self._since
        with self._stack:
            for server in self._web:
                code = server.stop()
                self.outcome.check(code == 0, f"gunicorn's exit code was {code}")
        shutil.rmtree(self.folder, ignore_errors=True)
