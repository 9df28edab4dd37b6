"""`python -m zstreamer.broker`: the broker alone, with the options of `zstreamer broker`.

A program that starts a broker as its child runs this module too; `python -m broker` works in the
repository's root.
"""

import sys

from zstreamer.broker import server
from zstreamer.system.process import owned
from zstreamer.system.signals import heeded

if __name__ == "__main__":
    if owned():
        sys.exit(server.main())
    from zstreamer.cli import run
    from zstreamer.cli.serve import broker

    sys.exit(heeded(lambda: run(broker), serving=True))
