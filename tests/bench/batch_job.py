"""A large job, measured and checked: its speed beside `predict`, its memory, its errors in their
places, and what is left to do after it was killed.

    scripts/batch_job [--items N]

Client, broker and two workers of a model that does nothing share this machine.
"""

import argparse
import contextlib
import json
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.helpers.cluster import ROOT, Cluster
from tests.helpers.waiting import until
from zstreamer import errors

ITEMS, BAD = 1_000_000, 100
CALL = 20_000
"""Items of one plain call."""

ROUNDS = 5
KILLS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    total = parser.parse_args().items
    with Cluster() as cluster:
        for _ in range(2):
            cluster.worker("picky", batch_size=256)
        client = cluster.client(timeout=300)
        client.wait_ready(60)
        speed(client, total // ROUNDS)
        memory(client, total)
        killed(cluster, total)


def speed(client, count):
    """Tell how many items a second `map` reaches, beside large calls of `predict`."""
    plain, mapped, ratios = [], [], []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for first in range(0, count, CALL):
            client.predict(list(range(first, first + CALL)))
        between = time.perf_counter()
        assert sum(1 for _ in client.map(iter(range(count)))) == count
        ended = time.perf_counter()
        plain.append(count / (between - begun))
        mapped.append(count / (ended - between))
        ratios.append(mapped[-1] / plain[-1])
    tell(f"predict, {CALL:,} items a call: about {statistics.median(plain):,.0f} items/s")
    tell(f"map over a generator: about {statistics.median(mapped):,.0f} items/s")
    shown = " ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    tell(f"map beside predict, {ROUNDS} rounds: {shown}")


def is_bad(number, total):
    """Whether an item is one of the hundred that the model refuses."""
    return number % (total // BAD) == total // BAD // 2


def items(total):
    for number in range(total):
        yield "bad" if is_bad(number, total) else number


def memory(client, total):
    """Run a job with some bad items; tell how much memory this process takes for it."""
    process = psutil.Process()
    before = process.memory_info().rss
    begun = time.perf_counter()
    failed, checked = [], 0
    for index, output in enumerate(client.map(items(total), progress=True)):
        if isinstance(output, errors.PredictError):
            failed.append(index)
            assert output.index == index
        else:
            assert output == index
        checked += 1
    seconds = time.perf_counter() - begun
    assert checked == total
    assert failed == [number for number in range(total) if is_bad(number, total)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tell(f"{total:,} items in {seconds:.1f} s, {len(failed)} errors, all in their places")
    tell(f"memory of the client: {before / 2**20:.0f} MiB before, {peak / 2**20:.0f} MiB at most")


def killed(cluster, total):
    """Kill `zstreamer map` a few times, go on each time, and check the whole file."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        with source.open("w") as file:
            file.writelines(f"{json.dumps(item)}\n" for item in items(total))
        command = [sys.executable, "-m", "zstreamer", "map", str(source), "-o", str(target)]
        command += ["--resume", "--address", cluster.address]
        size = source.stat().st_size
        for turn in range(1, KILLS + 1):
            with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
                until(lambda: at(target) > 2 * size * turn / (KILLS + 1), 300)  # noqa: B023
                process.send_signal(signal.SIGKILL)
            text = target.read_bytes()
            lines = text.count(b"\n")
            torn = "whole" if text.endswith(b"\n") else "torn"
            tell(f"killed with SIGKILL at line {lines:,}; the last one is {torn}")
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        tell(f"zstreamer map --resume: {done.stderr.strip()}; exit code {done.returncode}")
        check(target, total)
    tell(f"the file has {total:,} lines, in order, without a gap; {BAD} of them errors")


def check(path, total):
    number = -1
    with path.open() as file:
        for number, line in enumerate(file):
            row = json.loads(line)
            bad = is_bad(number, total)
            expected = {"index": number} if bad else {"index": number, "output": number}
            assert ("error" in row) == bad, line
            assert {name: row[name] for name in expected} == expected, line
    assert number == total - 1


def at(path):
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def tell(line):
    print(line, flush=True)


if __name__ == "__main__":
    main()
