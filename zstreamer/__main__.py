"""The command `zstreamer`, and `python -m zstreamer`."""

import sys

from zstreamer.system.signals import heeded

SERVING = ("broker", "worker", "gateway", "up")


def main() -> None:
    """Run the command line and exit."""
    sys.exit(heeded(_run, serving=sys.argv[1:2] in [[each] for each in SERVING]))


def _run() -> int:
    from zstreamer.cli import group, run  # which takes a while, in which a signal may come

    return run(group)


if __name__ == "__main__":
    main()
