"""Rolling replacements under load, one after the other; see scripts/rolls.

The old worker is stopped after each, as `zstreamer roll` says: a machine that kept them all would
spend more of its time on idle processes with every replacement.
"""

import argparse
import sys
import time

from tests.helpers.cluster import Cluster, free_port
from tests.helpers.versions import Load, begun, command, version


def main():
    """Replace versions again and again; return 1 where an answer was wrong, lost or given twice."""
    parser = argparse.ArgumentParser(prog="scripts/rolls")
    parser.add_argument("--rolls", type=int, default=20, help="how many replacements")
    parser.add_argument("--callers", type=int, default=8, help="threads that call meanwhile")
    options = parser.parse_args()
    port = free_port()
    with Cluster(http_port=port) as cluster:
        cluster.url = f"http://127.0.0.1:{port}"
        cluster.wait_up()
        old = version(cluster, "v0")
        command(cluster, "route", "bert", "v0=1")
        with Load(cluster, options.callers) as load:
            for number in range(1, options.rolls + 1):
                started = time.monotonic()
                new = version(cluster, f"v{number}")
                command(cluster, "roll", "bert", "--to", f"v{number}", "--pause", "0.5")
                seconds = time.monotonic() - started
                print(f"roll {number}: {seconds:.1f} s, {len(load.answers):,} answers", flush=True)
                assert new.poll() is None, "the new version's worker has ended"
                old.terminate()
                assert old.wait(30) == 0, "the old version's worker did not end as it should"
                old = new
        items = [i for n in range(options.rolls + 1) for i in begun(cluster, f"v{n}")]
        twice = len(items) - len(set(items))
        print(
            f"{options.rolls} rolls, {len(load.answers):,} answers, {len(load.wrong)} wrong or "
            f"failed, {twice} items begun twice"
        )
        return 1 if load.wrong or twice or len(items) != len(load.answers) else 0


if __name__ == "__main__":
    sys.exit(main())
