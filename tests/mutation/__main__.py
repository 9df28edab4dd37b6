"""Run mutants from the command line; see scripts/mutate."""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.cluster import ROOT
from tests.mutation.changes import Change, changes

SUITES: dict[str, tuple[str, ...]] = {
    "zstreamer/client/core.py": ("tests/unit/test_client_core.py", "tests/unit/test_cores.py"),
    "zstreamer/client/unanswered.py": ("tests/unit/test_client_core.py",),
    "broker/core.py": ("tests/unit/test_broker_core.py", "tests/unit/test_broker_bounds.py"),
    "broker/sessions.py": ("tests/unit/test_broker_core.py", "tests/unit/test_broker_bounds.py"),
    "broker/notices.py": ("tests/unit/test_broker_core.py", "tests/unit/test_broker_bounds.py"),
    "broker/timers.py": ("tests/unit/test_broker_core.py", "tests/unit/test_broker_bounds.py"),
    "broker/undone.py": ("tests/unit/test_broker_core.py", "tests/unit/test_cores.py"),
    "broker/scheduler.py": ("tests/unit/test_broker_core.py", "tests/unit/test_cores.py"),
    "broker/admission.py": ("tests/unit/test_broker_core.py",),
    "broker/queue.py": ("tests/unit/test_queue.py", "tests/unit/test_broker_core.py"),
    "broker/lots.py": ("tests/unit/test_broker_core.py", "tests/unit/test_queue.py"),
    "broker/dispatch.py": ("tests/unit/test_dispatch.py",),
    "broker/patience.py": ("tests/unit/test_broker_bounds.py",),
    "zstreamer/batching.py": ("tests/unit/test_batching.py",),
    "zstreamer/returns.py": ("tests/unit/test_returns.py", "tests/unit/test_batching.py"),
    "zstreamer/worker/core.py": ("tests/unit/test_worker_core.py",),
    "zstreamer/worker/backlog.py": ("tests/unit/test_worker_core.py",),
    "zstreamer/worker/runner.py": ("tests/unit/test_runner.py",),
    "zstreamer/worker/link.py": (
        "tests/unit/test_worker_link.py",
        "tests/unit/test_worker_core.py",
    ),
    "zstreamer/wire/link.py": ("tests/unit/test_client_core.py", "tests/unit/test_worker_core.py"),
    "zstreamer/web/http/connection.py": ("tests/web/test_connection.py",),
    "zstreamer/web/http/receiver.py": ("tests/web/test_receiver.py",),
}
"""The pure cores, and the tests that should notice; the simulator comes last for all of them."""

SIMULATED = ("client", "broker", "worker", "wire")
SEEDS = 150

LIMIT = 120.0
"""Seconds after which a mutant counts as noticed: it hangs."""


def main() -> int:
    """Plant mutants; print who survived."""
    parser = argparse.ArgumentParser(prog="scripts/mutate")
    parser.add_argument("files", nargs="*", help="files to change (all the pure cores)")
    parser.add_argument("--count", type=int, default=200, help="mutants, chosen at random (200)")
    parser.add_argument("--seed", type=int, default=0, help="of that choice (0)")
    parser.add_argument(
        "--from", type=int, default=1, dest="first", help="number to go on from (1)"
    )
    parser.add_argument("--every", type=int, default=1, help="only each n-th from there (1)")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin none after so many")
    options = parser.parse_args()
    files = options.files or list(SUITES)
    found = [(file, change) for file in files for change in changes((ROOT / file).read_text())]
    chosen = random.Random(options.seed).sample(found, min(options.count, len(found)))
    numbered = list(enumerate(chosen, 1))[options.first - 1 :: options.every]
    end = time.monotonic() + 60 * options.minutes
    tried = survived = 0
    with tempfile.TemporaryDirectory(prefix="zst-") as folder:
        copy = Path(folder, "copy")
        ignored = shutil.ignore_patterns(".venv*", ".git", "__pycache__", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
        for number, (file, change) in numbered:
            if time.monotonic() > end:
                print(f"go on with --from {number}")
                break
            noticed = is_noticed(copy, file, change)
            print(f"{number:4} {'noticed' if noticed else 'SURVIVED'} {file} {change}", flush=True)
            tried += 1
            survived += not noticed
    print(f"{tried} mutants, {survived} survived")
    return 0


def is_noticed(copy: Path, file: str, change: Change) -> bool:
    """Whether any test fails with this change."""
    path = copy / file
    original = path.read_text()
    path.write_text(change.source)
    try:
        if not _passes(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SUITES[file]):
            return True
        simulated = any(part in file for part in SIMULATED)
        return simulated and not _passes(copy, "-m", "tests.simulation", "--seeds", str(SEEDS))
    finally:
        path.write_text(original)


def _passes(copy: Path, *arguments: str) -> bool:
    try:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=copy, capture_output=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
