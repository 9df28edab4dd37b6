"""Where a configuration comes from: flags, ZSTREAMER_* variables, a TOML file, defaults."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from zstreamer.config import (
    BrokerConfig,
    ClientConfig,
    Config,
    GatewayConfig,
    MapConfig,
    OperatorConfig,
    UpConfig,
    WorkerConfig,
)
from zstreamer.setting import ConfigError, Setting, settings, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

C = TypeVar("C", bound=Config)
Table: TypeAlias = "dict[str, object]"

PROGRAMS: tuple[type[Config], ...] = (
    BrokerConfig,
    WorkerConfig,
    GatewayConfig,
    UpConfig,
    ClientConfig,
    MapConfig,
    OperatorConfig,
)


def resolve(
    program: type[C],
    flags: Mapping[str, object] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> C:
    """The configuration of one program: flag, else variable, else file, else default.

    flags: values by field name, None where the flag was not given.
    file: a TOML file with a table for each program.
    Raises ConfigError naming the source, the value and the fix.
    """
    table = read_file(file).get(program.program, {}) if file else {}
    if isinstance(table, list):
        if len(table) > 1:
            name = program.program
            raise ConfigError(
                f"{file} has {len(table)} tables [[{name}]]: `zstreamer up` runs them all, and "
                f"`zstreamer {name}` one; give it a file with one"
            )
        table = table[0]
    place = f"[{program.program}] of {file}"
    return _resolved(program, flags or {}, environ, table, place)


def resolve_each(
    program: type[C],
    flags: Mapping[str, object] | None = None,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[C]:
    """The configuration of each of a program's tables, or the only one, as `resolve` finds it.

    What flags and variables say holds for all of them. Raises ConfigError as `resolve` does; it
    names the table by its number and line.
    """
    tables = read_file(file).get(program.program, {}) if file else {}
    if not isinstance(tables, list):
        return [resolve(program, flags, file=file, environ=environ)]
    found = []
    for place, table in zip(_places(file, program.program), tables, strict=False):
        try:
            found.append(_resolved(program, flags or {}, environ, table, place))
        except ConfigError as error:
            words = str(error)
            raise ConfigError(words if place in words else f"{place}: {words}") from None
    return found


def _places(file: Path | None, name: str) -> Iterator[str]:
    """Where each table of several stands."""
    text = file.read_text(encoding="utf-8") if file else ""
    heads = re.compile(rf"\s*\[\[\s*{name}\s*\]\]")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if heads.match(line)]
    for number in count(1):
        line = f", line {lines[number - 1]}" if number <= len(lines) else ""
        yield f"table {number} of [[{name}]] in {file}{line}"


def _resolved(
    program: type[C],
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    table: Mapping[str, object],
    place: str,
) -> C:
    given: dict[str, object] = {}
    for each in settings(program):
        for source, value in _found(each, flags, environ, table, place):
            given[each.name] = _parsed(each, source, value)
            break
    return program(**given)


def _found(
    each: Setting,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    table: Mapping[str, object],
    place: str,
) -> Iterator[tuple[str, object]]:
    if flags.get(each.name) is not None:
        yield each.flag, flags[each.name]
    if environ.get(each.variable):
        yield f"the variable {each.variable}", environ[each.variable]
    if each.name in table:
        yield f"{each.name} in {place}", table[each.name]


def _parsed(each: Setting, source: str, value: object) -> object:
    try:
        return each.kind.parse(value)
    except ValueError as error:
        raise ConfigError(f"{source} is {shown(value, 1000)}: {error}") from None


TENANTS = "tenants"
"""The table of what tenants may ask for; the broker's `tenants` says which file's."""

ROUTES = "routes"
"""The table of which version of a model gets which items; likewise."""


def load(file: Path) -> dict[str, object]:
    """What a TOML file has; raises ConfigError where it cannot be read."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the file {file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{file} has too many brackets within brackets: nest fewer") from None


def tables(file: Path, name: str, key: str) -> dict[str, Table]:
    """What a TOML file has in its tables [NAME.KEY], by key; none where it has none.

    Raises ConfigError where the file cannot be read, or something else stands in their place.
    """
    found = load(file).get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{file} has {name} that is no table: write [{name}.{key}]")
    for each, table in found.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{file} has {name}.{each} that is no table: write [{name}.{each}]")
    return found


SEVERAL = WorkerConfig.program
"""The program that may have several tables, as [[worker]]."""


def read_file(file: Path) -> dict[str, Any]:
    """The tables of a TOML file, by program, with their keys as field names; a list of several.

    Raises ConfigError for a file that cannot be read, or a table or key that no program has.
    """
    tables = load(file)
    for other in (TENANTS, ROUTES):
        tables.pop(other, None)
    known = {each.program: {one.name for one in settings(each)} for each in PROGRAMS}
    found: dict[str, Any] = {}
    for name, table in tables.items():
        _check_name(name, known, f"{file} has a table [{name}]")
        several = isinstance(table, list) and table and all(isinstance(t, dict) for t in table)
        if several and name != SEVERAL:
            raise ConfigError(f"{file} has [[{name}]]: only [[{SEVERAL}]] may stand several times")
        if not (several or isinstance(table, dict)):
            raise ConfigError(
                f"{file} has {name} outside a table: write it under a table such as [broker]"
            )
        found[name] = table
    return {name: _checked_all(table, name, known[name], file) for name, table in found.items()}


def _checked_all(table: Table | list[Table], name: str, known: set[str], file: Path) -> object:
    if isinstance(table, dict):
        return _checked(table, known, f"[{name}]", f"{file} has")
    places = zip(_places(file, name), table, strict=False)
    return [_checked(each, known, place, "there is") for place, each in places]


def _checked(table: Table, known: set[str], place: str, has: str) -> Table:
    named = {key.replace("-", "_"): value for key, value in table.items()}
    for key in named:
        _check_name(key, known, f"{has} {key} in {place}")
    return named


def _check_name(name: str, known: Mapping[str, object] | set[str], found: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        fix = f"did you mean {close[0]}?" if close else "known are " + ", ".join(sorted(known))
        raise ConfigError(f"{found}, which nothing reads; {fix}")
