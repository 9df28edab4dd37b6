"""Where a configuration comes from: flags, ZSTREAMER_* variables, a TOML file, defaults."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

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
from zstreamer.setting import ConfigError, Setting, settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

C = TypeVar("C", bound=Config)

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
    given: dict[str, object] = {}
    for each in settings(program):
        for source, value in _found(each, program, flags or {}, environ, table, file):
            given[each.name] = _parsed(each, source, value)
            break
    return program(**given)


def _found(
    each: Setting,
    program: type[Config],
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    table: Mapping[str, object],
    file: Path | None,
) -> Iterator[tuple[str, object]]:
    if flags.get(each.name) is not None:
        yield each.flag, flags[each.name]
    if environ.get(each.variable):
        yield f"the variable {each.variable}", environ[each.variable]
    if each.name in table:
        yield f"{each.name} in [{program.program}] of {file}", table[each.name]


def _parsed(each: Setting, source: str, value: object) -> object:
    try:
        return each.kind.parse(value)
    except ValueError as error:
        raise ConfigError(f"{source} is {value!r}: {error}") from None


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


def read_file(file: Path) -> dict[str, dict[str, object]]:
    """The tables of a TOML file, by program, with their keys as field names.

    Raises ConfigError for a file that cannot be read, or a table or key that no program has.
    """
    tables = load(file)
    for other in (TENANTS, ROUTES):
        tables.pop(other, None)
    known = {each.program: {one.name for one in settings(each)} for each in PROGRAMS}
    found: dict[str, Mapping[str, object]] = {}
    for name, table in tables.items():
        _check_name(name, known, f"{file} has a table [{name}]")
        if not isinstance(table, dict):
            raise ConfigError(
                f"{file} has {name} outside a table: write it under a table such as [broker]"
            )
        found[name] = table
    return {name: _checked(table, name, known[name], file) for name, table in found.items()}


def _checked(
    table: Mapping[str, object], name: str, known: set[str], file: Path
) -> dict[str, object]:
    named = {key.replace("-", "_"): value for key, value in table.items()}
    for key in named:
        _check_name(key, known, f"{file} has {key} in [{name}]")
    return named


def _check_name(name: str, known: Mapping[str, object] | set[str], found: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        fix = f"did you mean {close[0]}?" if close else "known are " + ", ".join(sorted(known))
        raise ConfigError(f"{found}, which nothing reads; {fix}")
