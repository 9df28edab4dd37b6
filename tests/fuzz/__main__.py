"""Fuzz from the command line; see scripts/fuzz."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import CORPUS, TARGETS
from tests.fuzz.flaws import FLAWS

ROOT = Path(__file__).parents[2]

FOLDER = ROOT / ".fuzz"
"""What is kept from run to run: inputs that reach something new, and those that failed."""

LIMITS = ("-timeout=20", "-rss_limit_mb=2048", "-max_len=4096", "-print_final_stats=1")
"""Of one input: seconds, memory and bytes."""


def main() -> int:
    """Run what the command line asks for; return 1 where an input failed, or a flaw was missed."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target (10)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one")
    parser.add_argument("--flaws", action="store_true", help="find deliberate bugs instead")
    options = parser.parse_args()
    targets = options.target or TARGETS
    if options.flaws:
        found = [
            _finds(name, target, options.minutes)
            for name, (target, _) in FLAWS.items()
            if target in targets
        ]
        return 0 if all(found) else 1
    good = [_fuzz(target, options.minutes) for target in targets]  # each, whatever fails
    return 0 if all(good) else 1


def _fuzz(target: str, minutes: float) -> bool:
    """Return whether no input failed."""
    work, failed = FOLDER / target, FOLDER / "failed"
    work.mkdir(parents=True, exist_ok=True)
    failed.mkdir(exist_ok=True)
    print(f"— {target}", flush=True)
    done = _run(target, minutes, f"-artifact_prefix={failed}/{target}-", str(work))
    lines = done.splitlines()
    wanted = ("stat::number_of_executed_units", "stat::new_units_added", "stat::peak_rss_mb")
    said = [line.removeprefix("stat::") for line in lines if line.startswith(wanted)]
    said += [line for line in lines if " cov: " in line][-1:]
    good = "Test unit written to" not in done and "Done " in done
    print("\n".join(said if good else lines[-60:]), flush=True)
    if not good:
        print(
            f"an input failed; it lies in {failed}. Fix what is wrong, and move the input to "
            f"{CORPUS / target}: the tests read all that is there."
        )
    return good


def _finds(name: str, target: str, minutes: float) -> bool:
    """Return whether a deliberate bug is found in time, from the seeds alone."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        said = _run(target, minutes, "--flaw", name, f"-artifact_prefix={folder}/", folder)
    found = "Uncaught Python exception" in said
    words = f"found after {time.monotonic() - begin:.0f} s" if found else "NOT FOUND"
    print(f"{target}: {name}: {words}", flush=True)
    return found


def _run(target: str, minutes: float, *arguments: str) -> str:
    """Run a harness; return all that it says."""
    flaw = arguments[:2] if arguments[0] == "--flaw" else ()
    rest = arguments[len(flaw) :]
    limit = f"-max_total_time={max(1, round(60 * minutes))}"
    command = [sys.executable, "-m", "tests.fuzz.harness", target, *flaw]
    done = subprocess.run(
        [*command, limit, *LIMITS, *rest, str(CORPUS / target)],
        check=False,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
