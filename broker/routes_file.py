"""The file of routes: a TOML table for each name, read again when it has changed.

    [routes.bert]
    weights = { "1" = 90, "2" = 10 }    # shares of the items; "" for workers without a version
    hold = { "2" = 4 }                  # warm workers that version 2 must have before it gets any
    shadow = "3"                        # gets a copy of items; its answers are compared and dropped
    shadow_share = 0.5                  # of the items

    [routes.stable]
    alias = "bert@1"

It may be the same file as that of `--config`.
"""

from __future__ import annotations

from pathlib import Path

from zstreamer.broker import routes
from zstreamer.broker.routes import Route, RouteError
from zstreamer.broker.watched import Watched
from zstreamer.setting import ConfigError
from zstreamer.sources import ROUTES, tables


def read(path: Path) -> dict[str, Route]:
    """Return the routes by name.

    Raises:
        ConfigError: the file cannot be read, or a value makes no sense; it says which.
    """
    found: dict[str, Route] = {}
    for name, table in tables(path, ROUTES, "MODEL").items():
        try:
            found[name] = routes.read(table)
        except RouteError as error:
            raise ConfigError(f"{path}, [{ROUTES}.{name}]: {error}") from None
    try:
        routes.check(found)
    except RouteError as error:
        raise ConfigError(f"{path}: {error}") from None
    return found


def watched(path: Path) -> Watched[dict[str, Route]]:
    """Return the file, to be read again when it has changed.

    Raises:
        ConfigError: the file cannot be read, or a value makes no sense.
    """
    return Watched(path, read, "routes")
