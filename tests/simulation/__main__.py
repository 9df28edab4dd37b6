"""Run seeds from the command line; see scripts/simulate."""

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.simulation import tenants
from tests.simulation.scenario import Scenario

CHUNK = 500
"""Seeds that one process runs before it reports; what a break loses."""


def main():
    """Run what the command line asks for; return 1 where a seed failed."""
    parser = argparse.ArgumentParser(prog="scripts/simulate")
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--results", type=Path, help="file of JSON lines to write and resume from")
    parser.add_argument("--seed", type=int, help="run this one seed only")
    parser.add_argument("--trace", action="store_true", help="print what happens in it")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that run seeds")
    parser.add_argument("--tenants", action="store_true", help="two tenants beside each other")
    options = parser.parse_args()
    if options.tenants:
        return tenants.report(options.first)
    if options.seed is not None:
        return one(options.seed, options.trace)
    seeds = range(options.first, options.first + options.seeds)
    return many(seeds, options.results, options.processes)


def one(seed, trace):
    """Run one seed and tell of it."""
    outcome = Scenario(seed, trace).run()
    for line in outcome.trace:
        print(line[:240])
    print(f"seed {seed}: {outcome.problem or 'clean'}; faults: {outcome.faults or 'none'}")
    return 1 if outcome.problem else 0


def many(seeds, results, processes):
    """Run seeds in so many processes, a line for each chunk; print the sum."""
    done = read(results)
    chunks = [
        (start, min(CHUNK, seeds.stop - start))
        for start in range(seeds.start, seeds.stop, CHUNK)
        if start not in done
    ]
    with ProcessPoolExecutor(processes) as pool:
        for row in pool.map(run_chunk, chunks):
            done[row["first"]] = row
            if results:
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            if row["failed"]:
                print(f"failed: {row['failed']}", flush=True)
    return report(done.values())


def read(results):
    """Return the chunks that an earlier run has done."""
    if not results or not results.exists():
        return {}
    rows = [json.loads(line) for line in results.read_text().splitlines() if line]
    return {row["first"]: row for row in rows}


def run_chunk(chunk):
    """Run some seeds; return their sums and their failures."""
    first, count = chunk
    start = time.process_time()
    sums = Counter()
    failed = {}
    for seed in range(first, first + count):
        outcome = Scenario(seed).run()
        sums.update(outcome.errors)
        sums.update(outcome.faults)
        sums.update(calls=outcome.calls, items=outcome.items, answered=outcome.answered)
        if outcome.problem:
            failed[seed] = outcome.problem[:200]
    seconds = time.process_time() - start
    return {"first": first, "seeds": count, "cpu": seconds, "sums": sums, "failed": failed}


def report(rows):
    """Print the sums of all chunks; return 1 where a seed failed."""
    rows = list(rows)
    sums = Counter()
    for row in rows:
        sums.update(row["sums"])
    seeds = sum(row["seeds"] for row in rows)
    cpu = sum(row["cpu"] for row in rows)
    failed = {seed: words for row in rows for seed, words in row["failed"].items()}
    for name, count in sums.most_common():
        print(f"{name:24}{count:12,}")
    print(f"{seeds:,} seeds, {1000 * cpu / max(1, seeds):.1f} ms of CPU each, {len(failed)} failed")
    for seed, words in list(failed.items())[:20]:
        print(f"  scripts/simulate --seed {seed} --trace   # {words}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
