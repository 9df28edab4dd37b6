"""scripts/hostile: attacks of all kinds; see its help."""

import argparse
import sys

from tests.hostile import core, keys, wire
from tests.web import hostile as web


def main():
    """Run what the command line asks for; return 1 where anything was not as it should be."""
    parser = argparse.ArgumentParser(prog="scripts/hostile", add_help=False)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--fuzz", type=int, default=0)
    parser.add_argument("--keys", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-h", "--help", action="store_true")
    options, others = parser.parse_known_args()
    if options.help:
        parser.print_help()
        return 0
    if options.fuzz:
        seconds = core.run(options.fuzz, options.seed)
        print(
            f"{options.fuzz:,} messages to a broker's core in {seconds:.0f} s: nothing was raised"
        )
    good = True
    if options.minutes:
        outcome = wire.run(60 * options.minutes, options.seed)
        print(outcome)
        good = outcome.good
    if options.keys:
        outcome = keys.run(options.keys)
        print(outcome)
        good = outcome.good and good
    if options.minutes or not (options.fuzz or options.keys):
        sys.argv[1:] = [*others, "--seed", str(options.seed)]
        good = web.main() == 0 and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
