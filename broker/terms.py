"""The file of tenants: a TOML table for each, read again when it has changed.

    [tenants.search]            # a tenant's name; "*" for all that are not named
    weight = 2                  # twice the turns of a tenant with 1
    items_per_second = 500
    bytes_per_second = 50e6     # of payload
    open_items = 2000           # admitted and not yet answered
    queue_share = 0.5           # of the broker's max_items and max_bytes
    max_priority = 5            # a higher one counts as 5

It may be the same file as that of `--config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from zstreamer.broker.tenants import Terms
from zstreamer.broker.watched import Watched
from zstreamer.keys.ring import MAX_TENANT, is_tenant
from zstreamer.setting import ConfigError, shown
from zstreamer.sources import TENANTS, Table, tables

_KEYS = {each.name for each in fields(Terms)}
_COUNTS = {"open_items", "max_priority"}
_BOUNDS = {
    "weight": (1e-3, 1e3),
    "items_per_second": (1e-3, 1e12),
    "bytes_per_second": (1e-3, 1e15),
    "open_items": (1, 2**31),
    "queue_share": (1e-6, 1.0),
    "max_priority": (-(2**31), 2**31),
}


def read(path: Path) -> dict[str, Terms]:
    """Return the terms by tenant.

    Raises:
        ConfigError: the file cannot be read, or a value makes no sense; it says which.
    """
    found = tables(path, TENANTS, "NAME")
    return {name: _terms(name, table, path) for name, table in found.items()}


def _terms(name: str, table: Table, path: Path) -> Terms:
    if not is_tenant(name):
        words = f"a tenant's name is printable text of up to {MAX_TENANT} characters"
        raise ConfigError(f"{path}: {words}, not {name!r:.300}")
    values: dict[str, Any] = {}
    for key, value in table.items():
        values[key] = _value(key, value, f"{path}, [{TENANTS}.{name}]")
    return Terms(**values)


def _value(key: str, value: object, place: str) -> float:
    if key not in _KEYS:
        known = ", ".join(sorted(_KEYS))
        raise ConfigError(f"{place} has {key}, which nothing reads; known are {known}")
    least, most = _BOUNDS[key]
    if key in _COUNTS and type(value) is not int:
        raise ConfigError(f"{place}: {key} is {shown(value)}; give a whole number")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # type: ignore[operator]  # a number
        raise ConfigError(f"{place}: {key} is {shown(value)}; give {least:g} to {most:g}")
    return int(value) if key in _COUNTS else float(value)  # type: ignore[call-overload,arg-type]  # a number


class TermsFile(Watched[dict[str, Terms]]):
    """The file of tenants, read again when it has changed.

    Args:
        path: the file.

    Raises:
        ConfigError: the file cannot be read, or a value makes no sense.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, read, "tenants")

    @property
    def terms(self) -> Mapping[str, Terms]:
        """As read last."""
        return self.value
