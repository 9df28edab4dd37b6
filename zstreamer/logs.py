"""Where the programs' logs go, and what a line looks like: one event a line, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)-7s %(process)d %(name)s %(message)s"


def start(level: str) -> None:
    """Log to standard error from now on; level: the least that is logged, such as "info"."""
    logging.basicConfig(level=level.upper(), format=FORMAT, stream=sys.stderr)
