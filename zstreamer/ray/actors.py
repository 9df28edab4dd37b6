"""The actors that own a broker or a worker: one process of zstreamer each.

Ray restarts an actor elsewhere when its node is lost; the process ends with its actor, since its
life is tied to its owner's. What is seen of CUDA_VISIBLE_DEVICES is what Ray has set.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import ray

from zstreamer.client.status import fetch
from zstreamer.config import AgentConfig, BrokerConfig
from zstreamer.errors import ZStreamerError
from zstreamer.ray import shipped
from zstreamer.ray.addresses import Addresses, Row
from zstreamer.ray.wanted import estimated
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import Process
from zstreamer.wire import address_file

START = 20.0
"""Seconds that a broker has to bind its ports."""


class BrokerActor:
    """Owns a broker on free ports of its node; a broker that ends is started again.

    Args:
        settings: fields of `BrokerConfig`.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        host = ray.util.get_node_ip_address()
        self._folder = Path(tempfile.mkdtemp(prefix="zstreamer-ray-broker-"))
        self._file = self._folder / "broker"
        self._http = host, _free_port(host)
        self._config = BrokerConfig(
            **{
                "host": host,
                "http_port": self._http[1],
                "client_address": f"tcp://{host}:*",
                "worker_address": f"tcp://{host}:*",
                "address_file": str(self._file),
                "insecure": True,
                **settings,
            }
        )
        self._process: Process | None = None
        self._look()

    def _look(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._file.unlink(missing_ok=True)
        self._process = Process("zstreamer.broker", self._config)
        end = time.monotonic() + START
        while not self._file.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the broker did not start ({self._process!r}); see its log")
            time.sleep(0.02)

    def addresses(self) -> Row:
        """Return where it is."""
        self._look()
        return {side: address_file.read(self._file, side) for side in ("clients", "workers")}

    def wanted(self, model: str) -> int:
        """Return how many workers its load wants."""
        with contextlib.suppress(OSError):
            asked = HTTPConnection(*self._http, timeout=2)
            asked.request("GET", "/metrics")
            pattern = rf'zstreamer_wanted_workers{{model="{re.escape(model)}"}} (\S+)'
            if found := re.search(pattern, asked.getresponse().read().decode()):
                return int(float(found[1]))
        return estimated(self.status()["models"].get(model, {}))

    def status(self) -> dict[str, Any]:
        """Return its snapshot; empty where it does not answer."""
        try:
            return fetch(self.addresses()["clients"], 2.0)
        except ZStreamerError as error:
            return {"broker": {"trouble": error.message}, "models": {}}

    def stop(self) -> int | None:
        """Drain it; return its exit code."""
        code = _drained(self._process, self._config.drain_grace)
        shutil.rmtree(self._folder, ignore_errors=True)
        return code


class WorkerActor:
    """Owns one `zstreamer worker` of a model.

    Args:
        controller: the name of the controller's actor, which knows the brokers.
        namespace: of that actor.
        model: a class or function by cloudpickle, or empty where ``settings`` has a target.
        settings: fields of `WorkerConfig`.
    """

    def __init__(
        self, controller: str, namespace: str, model: bytes, settings: Mapping[str, Any]
    ) -> None:
        self._addresses = Addresses(controller, namespace)
        self._folder = Path(tempfile.mkdtemp(prefix="zstreamer-ray-worker-"))
        self._env: dict[str, str | None] = {}
        given: dict[str, Any] = {"broker": (self._addresses.given,), **settings}
        if model:
            path = self._folder / "model"
            path.write_bytes(model)
            self._env[shipped.VARIABLE] = str(path)
            given["target"] = "zstreamer.ray.shipped:model"
        self._config = AgentConfig(**given)
        self._process = self._start()
        self._node = ray.get_runtime_context().get_node_id()

    def _start(self) -> Process:
        return Process("zstreamer.worker.supervisor", self._config, env=self._env)

    def look(self) -> dict[str, Any]:
        """Return its node, its process, and its exit code where its model cannot start."""
        code = self._process.poll()
        if code is not None and code not in (ExitCode.MODEL, ExitCode.USAGE):
            self._process = self._start()
        return {"node": self._node, "pid": self._process.pid, "code": code}

    def drain(self) -> int | None:
        """Have it finish what it has and end; return its exit code."""
        code = _drained(self._process, self._config.drain_grace)
        shutil.rmtree(self._folder, ignore_errors=True)
        return code


def _drained(process: Process | None, grace: float) -> int | None:
    if process is None:
        return None
    process.terminate()
    code = process.wait(grace + 5.0)
    process.close()
    return code


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
