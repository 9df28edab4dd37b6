"""The whole cluster on one machine, shown in a minute: what `scripts/demo` runs.

    python -m examples.demo [--keep] [--seconds 5]

Starts `zstreamer broker`, `zstreamer worker … --num 2` and gunicorn, asks
them to fill in sentences over HTTP, then measures the same model served naively, by a
ThreadedStreamer and by the cluster. Exits non-zero where an answer is missing or wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from urllib.parse import quote

CONNECTIONS = 32
SHOWN = (
    ("Happy birthday to [MASK].", "you"),
    ("Paris is the capital of [MASK].", "paris"),
    ("He opened the door and walked into the [MASK].", "room"),
)
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry")
PLACES = ("garden", "station", "library", "office", "school", "harbour", "village", "museum")
SENTENCES = [
    f"{name} went to the {place} and said happy birthday to [MASK]."
    for name in NAMES
    for place in PLACES
]


@dataclass
class Load:
    """What one measurement saw."""

    answers: int = 0
    problems: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


def main() -> int:
    """Run the demonstration; return the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", action="store_true", help="leave the cluster serving")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a measurement")
    options = parser.parse_args()
    problems: list[str] = []
    with cluster() as url:
        say("asking the cluster over HTTP")
        for sentence, word in SHOWN:
            answer = ask(url, sentence)
            print(f"  {sentence:55} {answer}")
            if answer != word:
                problems.append(f"{sentence!r} was answered {answer!r}, not {word!r}")
        expected = stable_answers(url)
        say(f"measuring {CONNECTIONS} connections, {options.seconds:g} s each")
        rows = [("cluster: broker, 2 workers, gunicorn", measure(url, expected, options.seconds))]
        if options.keep:
            keep(url)
    with single_process() as url:
        for name, path in (("naive: the model in each request", "naive"), ("ThreadedStreamer", "")):
            target = url.replace("/stream", f"/{path}") if path else url
            rows.insert(-1, (name, measure(target, expected, options.seconds)))
    table(rows, options.seconds)
    problems += [problem for _, load in rows for problem in load.problems]
    for problem in problems[:5]:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if problems else 0


def say(words: str) -> None:
    """Print a headline."""
    print(f"\n— {words}", flush=True)


@contextmanager
def cluster() -> Iterator[str]:
    """Start broker, workers and web server; yield the URL; stop them in the order of the data."""
    clients, workers, web = free_ports(3)
    broker_address = f"tcp://127.0.0.1:{clients}"
    url = f"http://127.0.0.1:{web}/stream"
    command = [sys.executable, "-m", "zstreamer"]
    model = "examples.bert_model:ManagedBertModel"
    say("starting a broker, two workers with a real BERT, and a gevent web server")
    with (
        program(
            *command, "broker", f"--port={clients}", f"--worker-port={workers}", "--http-port=0"
        ),
        program(
            *command,
            "worker",
            model,
            "--num=2",
            "--batch-size=64",
            f"--broker=tcp://127.0.0.1:{workers}",
        ),
        program(
            *(sys.executable, "-m", "gunicorn", "-c", "examples/gunicorn_cluster.py"),
            "--log-level=warning",
            "examples.flask_cluster:app",
            BIND=f"127.0.0.1:{web}",
            WORKERS="2",
            ZSTREAMER_BROKER=broker_address,
        ),
    ):
        wait_for(url, 120)
        yield url


@contextmanager
def single_process() -> Iterator[str]:
    """Start the web server that holds the model itself; yield its URL."""
    [port] = free_ports(1)
    say("starting one process with the model in it, for comparison")
    with program(sys.executable, "-m", "examples.flask_example", PORT=str(port)):
        url = f"http://127.0.0.1:{port}/stream"
        wait_for(url, 120)
        yield url


@contextmanager
def program(*command: str, **variables: str) -> Iterator[None]:
    """Run a program while the context lasts, then ask it to stop and see that it does."""
    quiet = {"HF_HUB_OFFLINE": "1", "ZSTREAMER_LOG_LEVEL": "warning"}
    log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
    process = subprocess.Popen(
        command, env={**os.environ, **quiet, **variables}, stdout=log, stderr=log
    )
    try:
        yield
    except BaseException:
        log.seek(0)
        sys.stderr.write(log.read()[-3000:].decode(errors="replace"))
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses, outside the range that outgoing connections take."""
    ports: list[int] = []
    for port in range(18000 + os.getpid() % 1000 * 8, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError("no free port between 18000 and 32000")


def wait_for(url: str, seconds: float) -> None:
    """Return once the whole way to the model answers; raise what stands in the way after that."""
    end = time.monotonic() + seconds
    while True:
        try:
            ask(url, SHOWN[0][0])
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def ask(url: str, sentence: str) -> str:
    """Return the word that is filled in; raise OSError where there is none."""
    with urllib.request.urlopen(url, f"s={quote(sentence)}".encode(), timeout=60) as response:
        [word] = json.load(response)
        return str(word)


def stable_answers(url: str) -> dict[str, str]:
    """Return the sentences whose answer does not depend on their batch, with that answer.

    In bfloat16 the shape of a batch moves near ties, about 1 in 200, to the other word.
    """
    form = "&".join(f"s={quote(sentence)}" for sentence in SENTENCES).encode()
    with urllib.request.urlopen(url, form, timeout=60) as response:
        together = dict(zip(SENTENCES, json.load(response), strict=True))
    return {s: word for s, word in together.items() if word == ask(url, s)}


def measure(url: str, expected: dict[str, str], seconds: float) -> Load:
    """Ask on many connections at once, and check every answer against its own question."""
    load = Load()
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=connection, args=(url, expected, number, end, load))
        for number in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not load.answers:
        load.problems.append(f"no answer from {url}")
    return load


def connection(url: str, expected: dict[str, str], number: int, end: float, load: Load) -> None:
    """One keep-alive connection that asks one sentence after another."""
    host, _, path = url.removeprefix("http://").partition("/")
    http = HTTPConnection(host, timeout=60)
    sentences = list(expected)[number:] + list(expected)[:number]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    turn = 0
    while time.monotonic() < end:
        sentence = sentences[turn % len(sentences)]
        turn += 1
        start = time.monotonic()
        try:
            http.request("POST", f"/{path}", f"s={quote(sentence)}", form)
            response = http.getresponse()
            body = response.read()
        except OSError as error:
            load.problems.append(f"{sentence!r}: {error!r}")
            return
        load.latencies.append(time.monotonic() - start)
        load.answers += 1
        if response.status != 200 or json.loads(body) != [expected[sentence]]:
            load.problems.append(
                f"{sentence!r} was answered {response.status} {body[:80]!r}, "
                f"not {expected[sentence]!r}"
            )
    http.close()


def table(rows: Sequence[tuple[str, Load]], seconds: float) -> None:
    """Print requests a second and latencies."""
    naive = rows[0][1].answers or 1
    print(f"\n  {'':38}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'speed-up':>10}")
    for name, load in rows:
        times = sorted(load.latencies) or [0.0]
        p50, p99 = (1000 * times[int(q * (len(times) - 1))] for q in (0.5, 0.99))
        rate, ratio = load.answers / seconds, load.answers / naive
        print(f"  {name:38}{rate:11.0f}{p50:9.0f}{p99:9.0f}{ratio:9.1f}x")


def keep(url: str) -> None:
    """Say how to ask, and wait for Ctrl-C."""
    print(f'\nserving: curl -d "s=Happy birthday to [MASK]." {url}\nCtrl-C stops it', flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    sys.exit(main())
