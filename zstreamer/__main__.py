"""`python -m zstreamer`: the command line, or the workers of an owner."""

import sys

from zstreamer.process import owned

if __name__ == "__main__":
    if owned():
        from zstreamer.cli.serve import run_owned_worker

        sys.exit(run_owned_worker())
    from zstreamer.cli import main

    main()
