"""The actor that keeps a cluster as it is wanted: its brokers, and as many workers as are wanted.

It is detached and restarted by Ray. What it needs to know again after that stands in its arguments
and in the names of its actors, so it can be lost with its node.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.util import list_named_actors

from zstreamer.ray.actors import BrokerActor, WorkerActor
from zstreamer.ray.addresses import Row
from zstreamer.ray.plan import Actor, plan
from zstreamer.ray.wanted import Autoscaling, Scaler

log = logging.getLogger(__name__)

NAMESPACE = "zstreamer"

LOOK = 0.5
ANSWER = 2.0
DRAINED = 60.0
"""Seconds between two looks at all actors, for their answers, and for their ends."""


class Controller:
    """Starts, drains and replaces the actors of one cluster.

    Args:
        name: the cluster's; its actors are called NAME/broker-0 and so on.
        model: what its workers run, by cloudpickle, or empty where ``worker`` has a target.
        num_workers: how many, where there is no autoscaling and nobody has called `scale`.
        brokers: how many.
        autoscaling: bounds, or None.
        broker, worker: fields of `BrokerConfig` and `WorkerConfig`.
        options: Ray's options of a worker's actor: num_cpus, num_gpus, runtime_env …
    """

    def __init__(
        self,
        name: str,
        model: bytes,
        num_workers: int,
        brokers: int,
        autoscaling: Autoscaling | None,
        broker: Mapping[str, Any],
        worker: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self._name = name
        self._model = model
        self._broker, self._worker, self._options = broker, worker, options
        self._scaler = None if autoscaling is None else Scaler(autoscaling)
        self._node = ray.get_runtime_context().get_node_id()
        self._lock = threading.RLock()
        self._closing = False
        self._rows: dict[str, Row] = {}
        self._seen: dict[int, dict[str, Any]] = {}
        self._draining: dict[int, Any] = {}
        self._statuses: list[dict[str, Any]] = []
        numbers = self._named("worker")  # it was restarted, and they were not
        self._wanted = len(numbers) or num_workers
        self._numbers = set(numbers)
        self._broker_names = [f"broker-{number}" for number in range(brokers)]
        for each in self._broker_names:
            self._start_broker(each)
        threading.Thread(target=self._run, name="look", daemon=True).start()

    # What others ask of it

    def addresses(self) -> list[Row]:
        """Return where the brokers are that answer."""
        return list(self._rows.values())

    def scale(self, workers: int) -> None:
        """Have so many workers from now on."""
        with self._lock:
            self._wanted = workers

    def status(self) -> dict[str, Any]:
        """Return what is wanted and what there is."""
        with self._lock:
            return {
                "name": self._name,
                "node": self._node,
                "wanted": self._wanted,
                "workers": {number: dict(self._seen.get(number, {})) for number in self._numbers},
                "draining": sorted(self._draining),
                "brokers": list(self._rows.values()),
                "models": [each.get("models", {}) for each in self._statuses],
            }

    def shutdown(self) -> None:
        """Drain the workers, then the brokers, and end their actors."""
        self._closing = True
        with self._lock:
            for kind in ("worker", "broker"):
                actors = [self._actor(f"{kind}-{number}") for number in self._named(kind)]
                found = [each for each in actors if each is not None]
                end = "drain" if kind == "worker" else "stop"
                _ended([getattr(each, end).remote() for each in found], DRAINED)
                for each in found:
                    ray.kill(each)
            self._rows = {}

    # What it does by itself

    def _run(self) -> None:
        while not self._closing:
            try:
                self._look_at_brokers()
                with self._lock:
                    if not self._closing:
                        self._look_at_workers()
            except Exception:
                log.exception("a look at the actors failed name=%s", self._name)
            time.sleep(LOOK)

    def _look_at_brokers(self) -> None:
        model = self._worker.get("model", "default")
        found: dict[str, Row] = {}
        statuses, wanted = [], []
        for name in self._broker_names:
            actor = self._actor(name) or self._start_broker(name)
            if (row := _answer(actor.addresses.remote())) is not None:
                found[name] = row
                statuses.append(_answer(actor.status.remote()) or {})
                if self._scaler is not None:
                    wanted.append(_answer(actor.wanted.remote(model)) or 0)
        if found:  # where none answers, the last ones may come back
            self._rows = found
            self._statuses = statuses
        if self._scaler is not None and wanted:
            self.scale(self._scaler.workers(time.monotonic(), sum(wanted)))

    def _look_at_workers(self) -> None:
        pending = {}
        for number in self._numbers:
            actor = self._actor(f"worker-{number}")
            if actor is None and number not in self._draining:
                actor = self._start_worker(number)
            if actor is not None and number not in self._draining:
                pending[actor.look.remote()] = number
        done = _ended(list(pending), ANSWER)
        self._seen = {}
        for each in done:
            with contextlib.suppress(Exception):
                self._seen[pending[each]] = ray.get(each)
        self._bury_drained()
        leaving = _leaving_nodes()
        warm = self._warm_pids()
        actors = [
            Actor(
                number,
                self._seen.get(number, {}).get("node", ""),
                self._seen.get(number, {}).get("pid") in warm,
                number in self._draining,
            )
            for number in sorted(self._numbers)
        ]
        todo = plan(actors, self._wanted, leaving)
        for number in todo.start:
            self._numbers.add(number)
            self._start_worker(number)
        for number in todo.drain:
            if (actor := self._actor(f"worker-{number}")) is not None:
                self._draining[number] = actor.drain.remote()

    def _bury_drained(self) -> None:
        for number, ended in list(self._draining.items()):
            done, _ = ray.wait([ended], timeout=0)
            if done:
                if (actor := self._actor(f"worker-{number}")) is not None:
                    ray.kill(actor)
                del self._draining[number]
                self._numbers.discard(number)

    def _warm_pids(self) -> set[int]:
        """Supervisors whose actor has answered and whose model some broker calls warm."""
        warm = sum(
            worker.get("state") == "warm"
            for status in self._statuses[:1]
            for model in status.get("models", {}).values()
            for worker in model.get("workers", ())
        )
        pids = [seen["pid"] for _, seen in sorted(self._seen.items()) if seen["code"] is None]
        return set(pids[:warm])

    # Actors

    def _named(self, kind: str) -> list[int]:
        head = f"{self._name}/{kind}-"
        rows = list_named_actors(all_namespaces=True)
        names = [row["name"] for row in rows if row["namespace"] == NAMESPACE]
        return sorted(int(name.removeprefix(head)) for name in names if name.startswith(head))

    def _actor(self, name: str) -> Any:
        with contextlib.suppress(ValueError):
            return ray.get_actor(f"{self._name}/{name}", namespace=NAMESPACE)
        return None

    def _start(self, actor: type, name: str, options: Mapping[str, Any], *args: object) -> Any:
        kept = {"lifetime": "detached", "namespace": NAMESPACE, "max_restarts": -1}
        kept |= {"scheduling_strategy": "SPREAD", "get_if_exists": True, "max_concurrency": 4}
        remote = ray.remote(actor).options(name=f"{self._name}/{name}", **{**kept, **options})
        return remote.remote(*args)

    def _start_broker(self, name: str) -> Any:
        return self._start(BrokerActor, name, {"num_cpus": 1}, dict(self._broker))

    def _start_worker(self, number: int) -> Any:
        arguments = f"{self._name}/controller", NAMESPACE, self._model, dict(self._worker)
        return self._start(WorkerActor, f"worker-{number}", self._options, *arguments)


def _ended(references: list[Any], seconds: float) -> list[Any]:
    """Those of these answers that come within so many seconds."""
    if not references:
        return []
    done: list[Any] = ray.wait(references, num_returns=len(references), timeout=seconds)[0]
    return done


def _answer(reference: Any) -> Any:
    """What an actor answers in time; None where it does not, or is gone."""
    with contextlib.suppress(Exception):
        return ray.get(reference, timeout=ANSWER)
    return None


def _leaving_nodes() -> set[str]:
    """The nodes that Ray is draining; none where this Ray does not say."""
    with contextlib.suppress(Exception):
        from ray._raylet import GcsClient

        client = GcsClient(address=ray.get_runtime_context().gcs_address)
        return set(client.get_draining_nodes())
    return set()
