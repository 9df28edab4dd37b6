"""The tables of docs/cli.md, from the settings and exit codes: what is written there is what holds.

python -m zstreamer.cli.reference docs/cli.md    # writes them into the page, between the marks
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from zstreamer.config import Config
from zstreamer.setting import settings
from zstreamer.sources import PROGRAMS
from zstreamer.system.exitcodes import ExitCode


def exit_codes() -> str:
    """The table of exit codes, in Markdown."""
    return _table(("code", "meaning"), ((f"{each:d}", each.meaning) for each in ExitCode))


def options() -> str:
    """The tables of each program's options, in Markdown."""
    return "\n\n".join(f"### {_heading(each)}\n\n{_options(each)}" for each in PROGRAMS)


def written_into(page: str) -> str:
    """The page with each table between its marks as it must be."""
    for name, text in (("exit codes", exit_codes()), ("options", options())):
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(start)
        after = rest.partition(end)[2]
        page = f"{before}{start}\n{text}\n{end}{after}"
    return page


def _heading(program: type[Config]) -> str:
    commands = {
        "client": "`zstreamer call`, `status`, `top`, `doctor` and `bench`",
        "map": "`zstreamer map`, besides those of `call`",
        "operator": "`zstreamer drain`, `zstreamer refuse` and `zstreamer resume`",
        "up": "`zstreamer up`, besides those of `broker` and `worker`",
    }
    return commands.get(program.program, f"`zstreamer {program.program}`")


def _options(program: type[Config]) -> str:
    rows = (
        (f"`{one.flag}`", f"`{one.variable}`", _code(one.shown_default), one.help)
        for one in settings(program)
    )
    return _table(("flag", "variable", "default", "what it is"), rows)


def _code(text: str) -> str:
    return f"`{text}`" if text else "none"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(written_into(page.read_text(encoding="utf-8")), encoding="utf-8")
