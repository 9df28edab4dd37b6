"""What a program holds of its cluster on Ray: `run`, `get` and `Cluster`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError

from zstreamer.client.client import Client
from zstreamer.config import BrokerConfig, GatewayConfig, WorkerConfig
from zstreamer.errors import BrokerUnreachable
from zstreamer.ray.addresses import Addresses
from zstreamer.ray.controller import NAMESPACE, Controller
from zstreamer.ray.wanted import Autoscaling

if TYPE_CHECKING:
    from ray.serve import Application

RESTART = 60.0
"""Seconds that Ray may take to start the controller again on another node."""


class Cluster:
    """A cluster that runs on Ray, whoever has started it.

    Args:
        name: as it was given to `run`.

    Raises:
        ValueError: Ray has no cluster of that name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._controller = ray.get_actor(f"{name}/controller", namespace=NAMESPACE)
        self._addresses = Addresses(f"{name}/controller", NAMESPACE)

    @property
    def address(self) -> str:
        """The brokers' client addresses as they are now, with commas between.

        They change when a broker moves; `client` follows them.

        Raises:
            BrokerUnreachable: no broker runs.
        """
        rows = self._ask("addresses")
        if not rows:
            raise BrokerUnreachable(f"no broker of {self.name!r} runs yet; see its status()")
        return ",".join(row["clients"] for row in rows)

    def client(self, **options: Any) -> Client:
        """Return a client that follows the brokers wherever Ray moves them.

        Args:
            options: those of `zstreamer.Client`. The model is the cluster's, unless given.
        """
        client = Client(
            self._addresses.given, **{"model": self.name, "connect_timeout": 30.0, **options}
        )
        client.__dict__["_kept"] = self._addresses  # its files live as long as it does
        return client

    def scale(self, workers: int) -> None:
        """Have so many workers from now on; those too many are drained."""
        if workers < 1:
            raise ValueError(f"give at least 1 worker, not {workers}")
        self._ask("scale", workers)

    def status(self) -> dict[str, Any]:
        """Return what is wanted and what there is, in plain values."""
        found: dict[str, Any] = self._ask("status")
        return found

    def wait(self, workers: int | None = None, timeout: float = 120.0) -> None:
        """Wait until so many workers are warm, or as many as are wanted.

        Raises:
            TimeoutError: they are not, in time; the message has the status.
        """
        end = time.monotonic() + timeout
        while True:
            status = self.status()
            models = status["models"][0] if status["models"] else {}
            known = [worker for each in models.values() for worker in each["workers"]]
            warm = sum(worker["state"] == "warm" for worker in known)
            wanted = status["wanted"] if workers is None else workers
            if warm == wanted and not status["draining"]:
                return
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{warm} of {wanted} workers are warm after {timeout:g} s: {status}"
                )
            time.sleep(0.2)

    def shutdown(self) -> None:
        """Drain the workers, then the brokers, and end all actors."""
        self._ask("shutdown")
        ray.kill(self._controller)

    def _ask(self, method: str, *arguments: object) -> Any:
        """What the controller answers, once Ray has restarted it where its node was lost."""
        end = time.monotonic() + RESTART
        while True:
            try:
                return ray.get(getattr(self._controller, method).remote(*arguments))
            except (ActorUnavailableError, ActorDiedError):
                if time.monotonic() > end:
                    raise
            time.sleep(0.2)

    def __repr__(self) -> str:
        return f"<Cluster {self.name!r} on Ray>"


def run(
    model: str | type | Callable[..., object],
    *,
    num_workers: int = 1,
    num_gpus: float = 0,
    num_cpus: float = 1,
    batch_size: int = 32,
    brokers: int = 1,
    name: str = "default",
    runtime_env: Mapping[str, Any] | None = None,
    autoscaling: Autoscaling | None = None,
    resources: Mapping[str, float] | None = None,
    broker: Mapping[str, Any] | None = None,
    **worker: Any,
) -> Cluster:
    """Start a cluster on Ray; it outlives the job that has started it, until `shutdown`.

    Args:
        model: a `ManagedModel` class or a function, or where to import it: "module:Name".
        num_workers: how many; with ``autoscaling`` at first.
        num_gpus: what Ray reserves for each worker; fractions share a GPU.
        num_cpus: the same of CPUs.
        resources: the same of resources of your own.
        batch_size: most items that one predict runs.
        brokers: how many, on nodes of their own where there are as many.
        name: of the cluster, and of the model that its clients call.
        runtime_env: Ray's, for the workers: packages, code, variables.
        autoscaling: bounds within which the load decides.
        broker: settings of `zstreamer broker` besides, such as ``{"max_bytes": "4GiB"}``.
        worker: settings of `zstreamer worker` besides, such as ``max_latency=0.02``.

    Raises:
        ValueError: a setting makes no sense, or a cluster of this name runs.
    """
    settings = {"model": name, "batch_size": batch_size, **worker}
    target = {"target": model} if isinstance(model, str) else {}
    WorkerConfig(**{"target": "shipped:model", **target, **settings})  # refuses a wrong one here
    BrokerConfig(**(broker or {}))
    options: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus}
    if resources:
        options["resources"] = dict(resources)
    if runtime_env:
        options["runtime_env"] = dict(runtime_env)
    shipped = b"" if isinstance(model, str) else cloudpickle.dumps(model)
    controller = ray.remote(Controller).options(
        name=f"{name}/controller",
        namespace=NAMESPACE,
        lifetime="detached",
        max_restarts=-1,
        max_concurrency=16,
        num_cpus=0,
    )
    arguments = (name, shipped, num_workers, brokers, autoscaling)
    actor = controller.remote(*arguments, dict(broker or {}), {**settings, **target}, options)
    ray.get(actor.addresses.remote())  # raises where it cannot start
    return Cluster(name)


def get(name: str = "default") -> Cluster:
    """Return a cluster that runs, from any job.

    Raises:
        ValueError: Ray has no cluster of that name.
    """
    return Cluster(name)


def serve_app(name: str = "default") -> Application:
    """Return the HTTP interface of a cluster as an application for Ray Serve: `serve run`.

    Raises:
        ImportError: Ray Serve is not installed (`pip install "ray[serve]"`).
    """
    from ray import serve

    from zstreamer.web.asgi import App

    def build() -> App:
        addresses = Addresses(f"{name}/controller", NAMESPACE)
        app = App(GatewayConfig(broker=(addresses.given,), model=name))
        app.__dict__["_kept"] = addresses  # its files live as long as the app does
        return app

    return serve.deployment(name=f"zstreamer-{name}")(serve.ingress(build)()).bind()
