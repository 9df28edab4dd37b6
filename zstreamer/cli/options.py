"""Command-line options made from the settings of the configurations, so that there is one table."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import rich_click as click

from zstreamer.config import Config
from zstreamer.setting import SWITCH, Setting, settings
from zstreamer.sources import resolve, resolve_each

PLAIN: Final[dict[str, Any]] = {
    "context_settings": {
        "help_option_names": ["-h", "--help"],
        "rich_help_config": {
            "text_markup": "rich",
            "width": min(100, shutil.get_terminal_size().columns),
            "options_table_column_types": ["opt_all", "metavar", "help"],
        },
    },
}
"""What every command's help looks like."""

VARIABLES: Final = "Settings can be variables too: --log-level is ZSTREAMER_LOG_LEVEL."

Command = Callable[..., int]


def configured(
    *programs: type[Config],
    without: tuple[str, ...] = (),
    several: type[Config] | None = None,
) -> Callable[..., Command]:
    """Give a command the options of some programs, and their configurations as arguments.

    programs: each becomes one positional argument; a setting that two share is one option. What is
        taken of each stands in the attribute ``taken`` of the command's callback.
    without: settings that the command decides by itself.
    several: the program of which the file may have several tables; its argument is a list.
    """
    offered = {one.name: one for each in programs for one in settings(each)}
    chosen = [one for name, one in offered.items() if name not in without]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def configure(config: Path | None, **values: object) -> int:
            flags = {one.name: values.pop(one.name) for one in chosen}
            made: list[object] = [
                (resolve_each if each is several else resolve)(each, flags, file=config)
                for each in programs
            ]
            return command(*made, **values)

        wrapped: Any = configure
        wrapped.taken = {each: [s for s in settings(each) if s in chosen] for each in programs}
        for one in reversed(chosen):
            wrapped = _parameter(one)(wrapped)
        return _config_file(wrapped)

    return decorate


def example(*lines: str) -> str:
    """The examples that stand below a command's help."""
    shown = [f"[bold cyan]  {_escaped(line)}[/]" for line in lines]
    return "\n\n".join(["[bold]Examples[/]", *shown, " ", f"[dim]{VARIABLES}[/]"])


def _parameter(one: Setting) -> Callable[[Command], Command]:
    if one.positional:
        return click.argument(one.name, required=False, metavar=one.kind.name)
    return click.option(
        one.flag,
        one.name,
        default=None,
        metavar=one.kind.name or None,
        is_flag=one.kind is SWITCH,
        help=f"{_escaped(one.help)} [dim]({_escaped(one.shown_default) or 'none'})[/]",
    )


def _config_file(command: Command) -> Command:
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="ZSTREAMER_CONFIG",
        help=_escaped("TOML file with a table for each program, such as [broker] and [client]."),
    )(command)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
