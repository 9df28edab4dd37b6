"""`python -m broker`: the broker alone, with the options of `zstreamer broker`."""

import sys

from zstreamer.process import owned

if __name__ == "__main__":
    from zstreamer.cli import run
    from zstreamer.cli.serve import broker, run_owned_broker

    sys.exit(run_owned_broker() if owned() else run(broker))
