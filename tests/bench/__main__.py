"""Run benchmarks from the command line; see scripts/bench."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.bench.report import Report, table

BENCHES = (
    *("broker", "roundtrip", "keys", "tenants", "versions", "fill"),
    *("mixed", "returning", "cpu", "gpu", "web"),
)
"""Modules of this package, each with ``run(seconds) -> Report``; imported when their turn comes,
since some need torch or a GPU."""

APART = {"peers": "web_peers", "embeddings": "embeddings", "page": "page", "observed": "observed"}
"""Those that `all` leaves out, by name: the first compares with what is not zstreamer's and is
installed in environments of its own, the second needs a model of the hub, the third Chromium, and
the last one a quiet machine."""

IN_PARTS = ("returning", "web", "peers")
"""Those of which parts can be run alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("name", choices=[*BENCHES, *APART, "all"], help="what is to be measured")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="for each figure, besides what it starts (5)"
    )
    parser.add_argument(
        "--parts",
        type=_names,
        default=(),
        help="of `returning`, `web` or `peers`, with commas between; all",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="of `gpu`: a tiny model on the CPU, to try it"
    )
    options = parser.parse_args(arguments)
    if options.tiny and options.name != "gpu":
        parser.error("--tiny is for gpu alone")
    if options.parts and options.name not in IN_PARTS:
        parser.error(f"--parts is for {', '.join(IN_PARTS)} alone")
    reports = []
    for name in BENCHES if options.name == "all" else (options.name,):
        print(f"— {name}", file=sys.stderr, flush=True)
        chosen = {"parts": options.parts} if options.parts else {}
        chosen |= {"tiny": True} if options.tiny else {}
        reports.append(_run(name, options.seconds, chosen))
        print(table(reports[-1]), flush=True)
        if options.json:
            plain = [report.plain() for report in reports]
            found = plain if options.name == "all" else plain[0]
            options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return 0 if all(report.good for report in reports) else 1


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _run(name: str, seconds: float, chosen: dict[str, object]) -> Report:
    try:
        module = importlib.import_module(f"tests.bench.{APART.get(name, name)}")
        report = module.run(seconds, **chosen)
        assert isinstance(report, Report)
    except Exception as error:
        traceback.print_exc()
        return Report(name, error=repr(error))
    return report


if __name__ == "__main__":
    sys.exit(main())
