"""The tables of docs/cli.md, from the commands and exit codes: what is written there is what holds.

python -m zstreamer.cli.reference docs/cli.md    # writes them into the page, between the marks
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import rich_click as click

from zstreamer.cli import COMMANDS
from zstreamer.config import Config
from zstreamer.setting import Setting, settings
from zstreamer.system.exitcodes import ExitCode

FEW = 8
"""Settings that are named one by one where another command's table has them."""

NONE = "–"


def exit_codes() -> str:
    """The table of exit codes, in Markdown."""
    return _table(("code", "meaning"), ((f"{each:d}", each.meaning) for each in ExitCode))


def options() -> str:
    """Each command with the table of its options, in Markdown.

    Settings that several commands take are in the table of the first of them.
    """
    homes: dict[type[Config], str] = {}
    return "\n\n".join(_section(name, each, homes) for name, each in _commands())


def written_into(page: str) -> str:
    """The page with each table between its marks as it must be."""
    for name, text in (("exit codes", exit_codes()), ("options", options())):
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(start)
        after = rest.partition(end)[2]
        page = f"{before}{start}\n{text}\n{end}{after}"
    return page


def _commands() -> Iterator[tuple[str, click.Command]]:
    for each in COMMANDS:
        name = f"zstreamer {each.name}"
        yield name, each
        if isinstance(each, click.Group):
            yield from ((f"{name} {one.name}", one) for one in each.commands.values())


def _section(name: str, command: click.Command, homes: dict[type[Config], str]) -> str:
    taken: Mapping[type[Config], list[Setting]] = getattr(command.callback, "taken", {})
    known = {"config"}.union(*({one.name for one in found} for found in taken.values()))
    rows = [_own(each) for each in command.params if each.name not in known and _is_option(each)]
    elsewhere = []
    for program, found in taken.items():
        if program in homes:
            elsewhere.append(_as_there(homes[program], program, found))
        else:
            homes[program] = name
            rows += [_setting(one) for one in found]
    usage = " ".join([name, *command.collect_usage_pieces(click.Context(command))])
    parts = [f"### `{name}`", f"`{usage}`: {_purpose(command)}"]
    if rows:
        parts.append(_table(("flag", "variable", "default", "what it is"), rows))
    if elsewhere:
        parts.append(f"It also takes {' and '.join(elsewhere)}.")
    return "\n\n".join(parts)


def _is_option(each: click.Parameter) -> bool:
    return isinstance(each, click.Option) and not each.hidden


def _purpose(command: click.Command) -> str:
    text = (command.help or "").partition("\n\n")[0].replace("\n", " ")
    return text[:1].lower() + text[1:]


def _as_there(home: str, program: type[Config], found: list[Setting]) -> str:
    link = f"[`{home}`](#{home.replace(' ', '-')})"
    if len(found) <= FEW:
        return f"{_listed(found)} as {link} does"
    left_out = [one for one in settings(program) if one not in found]
    return f"the options of {link}" + (f" except {_listed(left_out)}" if left_out else "")


def _listed(found: Sequence[Setting]) -> str:
    flags = [f"`{one.flag}`" for one in found]
    return " and ".join(each for each in (", ".join(flags[:-1]), flags[-1]) if each)


def _setting(one: Setting) -> Sequence[str]:
    return f"`{one.flag}`", f"`{one.variable}`", _code(one.shown_default), one.help


def _own(option: click.Parameter) -> Sequence[str]:
    """The row of an option of one command alone; its help ends with its default, if it has one."""
    assert isinstance(option, click.Option)  # noqa: S101  # `_is_option` has seen to it
    found = re.fullmatch(r"(.*?)(?: \[dim\]\((.*)\)\[/\])?", option.help or "", re.DOTALL)
    text, default = found.groups() if found else ("", None)
    if default is None:
        default = "off" if option.is_flag else "required" if option.required else ""
    flags = ", ".join(f"`{each}`" for each in (*option.opts, *option.secondary_opts))
    variable = f"`{option.envvar}`" if option.envvar else NONE
    return flags, variable, default or "none", text


def _code(text: str) -> str:
    return f"`{text}`" if text else "none"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(written_into(page.read_text(encoding="utf-8")), encoding="utf-8")
