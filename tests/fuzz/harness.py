"""Has atheris make up inputs for one target: `python -m tests.fuzz.harness TARGET [--flaw NAME] …`.

All other arguments are libFuzzer's.
"""

from __future__ import annotations

import importlib
import logging
import sys

import atheris


def main() -> None:
    """Fuzz until libFuzzer ends it."""
    _, target, *rest = sys.argv
    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=["zstreamer", "tests.fuzz"]):
        check = importlib.import_module(f"tests.fuzz.{target}").check
    if rest[:1] == ["--flaw"]:
        from tests.fuzz.flaws import FLAWS

        flaw = FLAWS[rest[1]][1]()  # kept, or it would be taken back when it is collected
        flaw.__enter__()
        rest = rest[2:]
    atheris.Setup([sys.argv[0], *rest], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
