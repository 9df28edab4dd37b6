"""OpenAI's client against the embeddings route: its answers, and what the route costs beside v1.

32 threads ask for one text each, again and again. Rounds of the real `openai` client, of the bare
route and of the v1 route take turns, so that what else the machine does hits all of them. Each
vector of the client is held against the model's own, called here without a server.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai

from tests.bench.report import LESS, Report, Row
from tests.helpers.cluster import ROOT, free_port
from tests.helpers.waiting import until
from zstreamer.hf import model

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
THREADS, ROUNDS = 32, 3
PATIENT = {"X-Request-Timeout": "120"}
TEXTS = [f"text number {at} about {'cats and ' * (at % 7)}dogs" for at in range(1000)]


def run(seconds: float) -> Report:
    """Return the largest error of a thousand vectors, and the median times; seconds: of a round."""
    report = Report("embeddings")
    with (
        _served() as url,
        httpx.Client(timeout=60, limits=httpx.Limits(max_connections=99)) as bare,
    ):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)

        def asked(text: str) -> Sequence[float]:
            return client.embeddings.create(model="default", input=text).data[0].embedding

        def route(text: str) -> None:
            body = {"input": text, "encoding_format": "base64"}
            bare.post(f"{url}/v1/embeddings", json=body).raise_for_status()

        def v1(text: str) -> None:
            body = {"instances": [text]}
            bare.post(f"{url}/v1/models/default:predict", json=body).raise_for_status()

        with ThreadPoolExecutor(THREADS) as pool:
            found = np.array([*pool.map(asked, TEXTS)])
            wrong = float(np.abs(found - _own()).max())
            report.add(Row("1,000 vectors, largest error", [wrong], "", bound=(LESS, 1e-3)))
            times: dict[Callable[[str], object], list[float]] = {asked: [], route: [], v1: []}
            for _ in range(ROUNDS):
                for each, medians in times.items():
                    medians.append(1000 * _median(pool, each, seconds))
        client.close()
    report.add(Row("/v1/embeddings, p50", times[route], "ms", times[v1], (LESS, 1.3), "against v1"))
    report.add(Row("the same by openai's client, p50", times[asked], "ms", times[v1], (LESS, 1.3)))
    return report


def _median(pool: ThreadPoolExecutor, ask: Callable[[str], object], seconds: float) -> float:
    """Return the median time of a request, in seconds, while all threads ask for so long."""
    end = time.perf_counter() + seconds

    def loop(first: int) -> list[float]:
        taken = []
        while not taken or time.perf_counter() < end:
            begun = time.perf_counter()
            ask(TEXTS[(first + THREADS * len(taken)) % len(TEXTS)])
            taken.append(time.perf_counter() - begun)
        return taken

    return statistics.median(one for each in pool.map(loop, range(THREADS)) for one in each)


def _own() -> np.ndarray:
    """The vectors of the model itself."""
    own = model(MODEL)()
    own.init_model(device="cpu")
    return np.stack([np.asarray(each) for each in own(TEXTS)])


@contextlib.contextmanager
def _served() -> Iterator[str]:
    """The one command; yields where it serves."""
    http, clients, workers = (str(free_port()) for _ in range(3))
    command = ["up", f"hf:{MODEL}", "--http", http, "--port", clients, "--worker-port", workers]
    process = subprocess.Popen(
        [sys.executable, "-m", "zstreamer", *command, "--http-port", "0", "--log-level", "error"],
        cwd=ROOT,
    )
    url = f"http://127.0.0.1:{http}"

    def ready() -> bool:
        assert process.poll() is None, "it has ended"
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/readyz").status_code == 200
        return False

    try:
        until(ready, 120)
        yield url
    finally:
        process.terminate()
        process.wait(60)
