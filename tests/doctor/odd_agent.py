"""A worker whose clock is wrong: started as a module in the place of the supervisor."""

import sys
import time

if __name__ == "__main__":
    real = time.time
    time.time = lambda: real() + 600
    from zstreamer.worker.agent import main

    sys.exit(main())
