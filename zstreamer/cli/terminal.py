"""What others have said, made fit for the terminal that it is printed on."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TextIO

from zstreamer.system.logs import printable

LONGEST = 2000
"""Characters of one line."""


def clean(text: str, stream: TextIO | None = None) -> str:
    """Return one line without what moves the cursor, or what the stream cannot encode.

    Args:
        text: what a model, a worker or a broker says.
        stream: where it is to be printed, standard output where None.
    """
    encoding = (stream or sys.stdout).encoding or "utf-8"
    shown = printable(text, LONGEST)
    try:
        shown.encode(encoding)
    except UnicodeEncodeError:
        plain = shown.replace("–", "-").replace("…", "...")
        shown = plain.encode(encoding, "backslashreplace").decode(encoding)
    return shown


def forgive() -> None:
    """Have standard output write what it cannot encode as escapes, as standard error does.

    Where the program was started without one (``>&-``), what is written goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # for good
            setattr(sys, name, nowhere)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
