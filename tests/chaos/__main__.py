"""Run rows from the command line; see scripts/chaos."""

import argparse
import json
import sys
import traceback
from pathlib import Path

from tests.chaos import rows
from tests.chaos.outcome import Outcome, table


def main():
    """Run what the command line asks for; return 1 where a promise did not hold."""
    parser = argparse.ArgumentParser(prog="scripts/chaos")
    parser.add_argument("row", choices=[*rows.ROWS, "all"], help="what is to break")
    parser.add_argument("--times", type=int, help="how many faults, where not the row's own number")
    parser.add_argument("--quick", action="store_true", help="few faults, as in the test suite")
    parser.add_argument("--seconds", type=float, help="how long the soak lasts")
    parser.add_argument("--gevent", action="store_true", help="callers patched by gevent")
    parser.add_argument(
        "--gunicorn", action="store_true", help="call through an app in gunicorn's gevent workers"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    common = rows.Options(
        gevent=options.gevent,
        gunicorn=options.gunicorn,
        quick=options.quick,
        seconds=options.seconds,
    )
    names = [options.row]
    if options.row == "all":
        names = [name for name in rows.ROWS if not rows.refusal(name, common)]
    elif words := rows.refusal(options.row, common):
        parser.error(words)
    outcomes = []
    for name in names:
        print(f"— {name}", file=sys.stderr, flush=True)
        outcomes.append(_run(name, common, options.times))
        if options.json:
            options.json.write_text(json.dumps([each.plain() for each in outcomes], indent=1))
    print(table(outcomes))
    return 0 if all(each.good for each in outcomes) else 1


def _run(name, common, times):
    try:
        return rows.run(name, common, times)
    except Exception as error:
        traceback.print_exc()
        failed = Outcome(name, times or 0)
        failed.check(False, f"the row itself failed: {error!r}")
        return failed


if __name__ == "__main__":
    sys.exit(main())
