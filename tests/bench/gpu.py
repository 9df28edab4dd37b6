"""A GPU that should never wait: a BERT-base by itself, through the cluster, as text, over HTTP.

    alone      ready word pieces, the best batch: eager, as CUDA graphs, compiled, both
    through    the same pieces: callers ─> broker ─> worker; and two workers on the card
    text       calls of 32 texts
    http       one text a request, with 64 and 256 connections

Weights are random, since only the speed is asked for. What this machine cannot measure stands in
the table as "not measured".
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tests.bench import bert, card, gpu_models, rates, serving
from tests.bench.callers import Spec
from tests.bench.load import Load
from tests.bench.report import MORE, Report, Row
from tests.helpers.cluster import ROOT, Cluster, free_port
from tests.helpers.waiting import until
from zstreamer.model import Pending
from zstreamer.system import cpus
from zstreamer.system.interpreter import environment, module_command
from zstreamer.torch import TorchModel
from zstreamer.torch.device import choose_dtype

PIECES, TEXTS = "tests.bench.gpu_models:Pieces", "tests.bench.gpu_models:Texts"

CALL = 32
"""Texts of a call."""

CALLERS = 64
"""Of such calls."""

PROGRAMS = 4
"""Among which callers are divided, so that Python's clients are not the limit."""

ALONE = "model by itself"
MODES: dict[str, dict[str, object]] = {
    "eager": {"graphs": False},
    "CUDA graphs": {"graphs": "auto"},
    "compiled": {"graphs": False, "compile": True},
    "compiled, CUDA graphs": {"graphs": True, "compile": True},
}
LEAST = {ALONE: 60_000.0, "text": 20_000.0, "http": 3_000.0}
"""Items a second that an H100 must reach."""

THROUGH = 0.9
"""Of the model by itself, up to 60,000 items a second."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and how.

    Args:
        device: "cuda" or "cpu".
        size: of the BERT, see `tests.bench.gpu_models`.
        modes: in which the model by itself runs.
        lengths: tokens of an item; the first is that of all rows but the last ones.
        batches: sizes to choose the best from.
        connections: of HTTP.
        workers: that share the card, besides a single one; 0: none.
        rounds: of each row.
    """

    device: str = "cuda"
    size: str = "base"
    modes: Sequence[str] = tuple(MODES)
    lengths: Sequence[int] = (16, 128)
    batches: Sequence[int] = gpu_models.BATCHES
    connections: Sequence[int] = (64, 256)
    workers: int = 2
    rounds: int = 3


TINY = Plan(
    "cpu", "tiny", ("eager",), lengths=(16,), batches=(1, 4), connections=(2,), workers=2, rounds=1
)
"""Tries the benchmark itself, on any machine."""


def run(seconds: float, tiny: bool = False) -> Report:
    """Measure in rounds of so many seconds each, where there is a CUDA device."""
    if tiny:
        return measure(seconds, TINY)
    if not torch.cuda.is_available():
        notes = ["there is no CUDA device here: rows without figures were not measured"]
        report = Report("gpu", notes=notes)
        for name in names(Plan()):
            report.rows.append(Row(name, [], "items/s"))
        return report
    return measure(seconds, Plan())


def names(plan: Plan) -> list[str]:
    """Return the names of all rows, in their order."""
    found: list[str] = []
    for length in plan.lengths:
        found += [_alone(mode, length) for mode in plan.modes]
        found.append(_through(length, 1))
        if length != plan.lengths[0]:
            continue
        found += [_through(length, plan.workers)] if plan.workers else []
        found.append(_text(length))
        found += [_http(length, each) for each in plan.connections]
    return found


def _alone(mode: str, length: int) -> str:
    return f"{ALONE}, {mode}, {length} tokens"


def _through(length: int, workers: int) -> str:
    shared = f", {workers} workers on the device" if workers > 1 else ""
    return f"client, broker and worker, {length} tokens{shared}"


def _text(length: int) -> str:
    return f"text in calls of {CALL}, {length} tokens"


def _http(length: int, connections: int) -> str:
    return f"HTTP, one text a request, {connections} connections, {length} tokens"


def measure(seconds: float, plan: Plan) -> Report:
    """Measure what a plan says."""
    dtype = str(choose_dtype("auto", torch.device(plan.device))).removeprefix("torch.")
    name = torch.cuda.get_device_name() if plan.device == "cuda" else plan.device
    words = f"BERT-{plan.size} of random weights in {dtype} on {name}, torch {torch.__version__}"
    report = Report("gpu", notes=[words, "the reference of a row stands in its name's last words"])
    settings = {"size": plan.size, "device": plan.device, "dtype": dtype, "threads": cpus.share(1)}
    bench = _Bench(report, plan, seconds, settings, name)
    with serving.threads_kept():
        for length in plan.lengths:
            bench.length(length)
    return report


class _Bench:
    def __init__(
        self, report: Report, plan: Plan, seconds: float, settings: dict[str, object], name: str
    ) -> None:
        self._report, self._plan, self._seconds = report, plan, seconds
        self._settings, self._device = settings, name

    def length(self, length: int) -> None:
        """Add the rows of items of one length."""
        plan, items = self._plan, bert.pieces(max(4 * self._plan.batches[-1], 64), length)
        best, size = self._models(length, items)
        self._served(length, items, 1, best, size)
        if length != plan.lengths[0]:
            return
        if plan.workers:
            self._served(length, items, plan.workers, best, size)
        self._as_text(length, size)

    def _models(self, length: int, items: Sequence[object]) -> tuple[list[float], int]:
        """The model by itself in each mode; returns the rates of the fastest, and its batch."""
        eager: list[float] = []
        best: list[float] = [0.0]
        best_size = 1
        for mode in self._plan.modes:
            name = _alone(mode, length)
            try:
                rate, size = self._one_model(mode, items)
            except Exception as error:  # one that cannot run here must not end the others
                self._missing(name, error)
                continue
            eager = eager or rate
            if max(rate) > max(best):
                best, best_size = rate, size
            bound = (MORE, LEAST[ALONE]) if self._bounded(length, mode) else None
            told = f"batches of {size}{self._share(rate, length)}"
            references = [] if bound or rate is eager else eager
            self._report.add(
                Row(
                    f"{name}, against eager" if references else name,
                    rate,
                    "items/s",
                    references,
                    bound,
                    told,
                )
            )
        return best, best_size

    def _one_model(self, mode: str, items: Sequence[object]) -> tuple[list[float], int]:
        model = self._load(PIECES, **MODES[mode])
        ready = [model.prepare(item) for item in items]
        run: rates.Batches = _Overlapped(model) if model.overlaps else model.predict
        size = rates.best_size(run, ready, self._seconds / 10, self._plan.batches)
        seconds = self._seconds / self._plan.rounds
        rate = [rates.alone(run, ready, size, seconds) for _ in range(self._plan.rounds)]
        del model
        if self._plan.device == "cuda":
            torch.cuda.empty_cache()
        return rate, size

    def _load(self, target: str, **settings: object) -> TorchModel:
        given = {**self._settings, "batches": list(self._plan.batches), **settings}
        return serving.Subject(target, given, []).load()

    def _served(
        self, length: int, items: list[Any], workers: int, best: list[float], size: int
    ) -> None:
        name = _through(length, workers)
        try:
            with self._cluster(PIECES, size, workers) as cluster:
                found = self._load_from(
                    "tests.bench.callers", cluster, items, callers=4 * size * workers
                )
        except Exception as error:  # as above
            self._missing(name, error)
            return
        bound = (MORE, THROUGH) if workers == 1 and self._plan.device == "cuda" else None
        fair = [min(each, LEAST[ALONE]) for each in best]
        told = f"batches of {size}{self._share(found, length)}"
        self._report.add(Row(f"{name}, against {ALONE}", found, "items/s", fair, bound, told))

    def _as_text(self, length: int, size: int) -> None:
        plan = self._plan
        texts = gpu_models.texts(max(4 * plan.batches[-1], 64), length)
        model = self._load(TEXTS)
        seconds = self._seconds / plan.rounds
        raw = [rates.alone(model, texts, size, seconds) for _ in range(plan.rounds)]
        del model
        with self._cluster(TEXTS, size, 1) as cluster:
            call = min(CALL, len(texts))
            found = self._load_from(
                "tests.bench.callers_calls", cluster, texts, callers=CALLERS, arguments=(str(call),)
            )
            bound = (MORE, LEAST["text"]) if plan.device == "cuda" else None
            told = f"batches of {size}{self._share(found, length)}"
            row = Row(_text(length), found, "items/s", [], bound, told)
            self._report.add(row)
            against = f"{_text(length)}, against model(texts) in a loop"
            self._report.add(replace(row, name=against, references=raw, bound=None))
            with _gateway(cluster.address) as port:
                for connections in plan.connections:
                    self._over_http(length, connections, port, texts, raw)

    def _over_http(
        self,
        length: int,
        connections: int,
        port: int,
        texts: list[str],
        raw: list[float],
    ) -> None:
        path = "/v1/models/default:predict"
        arguments = ("127.0.0.1", str(port), path)
        found = self._load_from("tests.bench.callers_http", None, texts, connections, arguments)
        bound = (MORE, LEAST["http"]) if self._plan.device == "cuda" else None
        self._report.add(Row(_http(length, connections), found, "items/s", [], bound))
        against = f"{_http(length, connections)}, against model(texts) in a loop"
        self._report.add(Row(against, found, "items/s", raw))

    @contextlib.contextmanager
    def _cluster(self, target: str, size: int, workers: int) -> Iterator[Cluster]:
        given = {**self._settings, "batches": [each for each in self._plan.batches if each <= size]}
        given["threads"] = cpus.share(workers)
        devices = ("0",) if self._plan.device == "cuda" else ()
        with Cluster(tcp=True) as cluster:
            cluster.worker(target, num=workers, devices=devices, batch_size=size, init_kwargs=given)
            cluster.wait_up()
            until(lambda: _warm(cluster) == workers, rates.WARM)
            yield cluster

    def _load_from(
        self,
        module: str,
        cluster: Cluster | None,
        items: list[Any],
        callers: int,
        arguments: Sequence[str] = (),
    ) -> list[float]:
        """Answers a second of a closed loop of callers, in rounds."""
        where = (cluster.address, "default") if cluster is not None else ()
        programs = min(PROGRAMS, callers, max(1, (os.cpu_count() or 1) // 2))
        seconds = self._seconds / self._plan.rounds
        spec = Spec(
            callers=callers,
            warm_up=max(0.3, seconds / 4),
            seconds=seconds,
            timeout=rates.PATIENCE,
            items=items[:2048],
        )
        with Load(*where, *arguments, processes=programs, module=module) as load:
            tallies = [load.measure(spec) for _ in range(self._plan.rounds)]
        for tally in tallies:
            if tally.errors:
                raise RuntimeError(f"{module}: {dict(tally.errors)}")
        return [tally.answered / (tally.end - tally.start) for tally in tallies]

    def _bounded(self, length: int, mode: str) -> bool:
        first = length == self._plan.lengths[0]
        return first and mode == "CUDA graphs" and self._plan.device == "cuda"

    def _share(self, rate: Sequence[float], length: int) -> str:
        """Say what share of the card's peak a rate is."""
        peak = card.peak(self._device)
        if peak is None or self._plan.size != "base":
            return ""
        return f", {max(rate) * card.flops(length) / peak:.1%} of the card's peak"

    def _missing(self, name: str, error: Exception) -> None:
        self._report.add(Row(name, [], "items/s", told=f"{type(error).__name__}: {error}"[:200]))


class _Overlapped:
    """Runs batches as a worker does: the answers of one are made while the next computes."""

    def __init__(self, model: TorchModel) -> None:
        self._model = model
        self._before: Pending | None = None

    def __call__(self, batch: list[object]) -> Sequence[object]:
        """Begin a batch and return the answers of the one before.

        The first counts although its answers are still to come: those of the last never do.
        """
        before, self._before = self._before, self._model.begin(batch)
        return [None] * len(batch) if before is None else before.outputs()


def _warm(cluster: Cluster) -> int:
    workers = cluster.model().get("workers", [])
    return sum(each["state"] == "warm" for each in workers)


@contextlib.contextmanager
def _gateway(broker: str) -> Iterator[int]:
    port = free_port()
    command = [*module_command("zstreamer"), "gateway", "--broker", broker, "--port", str(port)]
    with subprocess.Popen(
        [*command, "--processes", str(max(1, min(4, (os.cpu_count() or 1) // 4)))],
        env={**environment({}), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    ) as process:
        try:
            until(lambda: _answers(port), 60)
            yield port
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
        return True
    return False
