"""Routes: which version of a model gets which items, as an operator has said it. Pure.

A route is a plain table, in the broker's file or in an operator's order:

    weights        items of each version, as shares of their sum; none: as it has warm workers
    hold           workers of a version that must be warm before it gets anything
    shadow         a version that gets a copy of items; its answers are compared and dropped
    shadow_share   of the items, what is copied
    alias          another model, or MODEL@VERSION, that this name stands for

The version of workers that announce none is the empty text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from zstreamer.setting import VERSION, VERSION_WORDS, shown
from zstreamer.wire.protocol import MAX_NAME

AT = "@"
"""Between a model's name and its version."""

MAX_ROUTES = 1000
"""Names that have a route."""

MAX_VERSIONS = 64
"""Versions that one route names."""

MAX_WORKERS = 2**20
"""Warm workers that a version may be held back for."""


class RouteError(ValueError):
    """A route makes no sense; the text says why, and what is expected."""


@dataclass(frozen=True)
class Route:
    """What holds for one name; see the module."""

    weights: Mapping[str, float] = field(default_factory=dict)
    hold: Mapping[str, int] = field(default_factory=dict)
    shadow: str | None = None
    shadow_share: float = 1.0
    alias: str | None = None

    def changed(self, table: Mapping[str, object]) -> Route:
        """Return the route with what the table has in place of what it had; None for nothing.

        Raises:
            RouteError: it makes no sense.
        """
        before = {key: value for key, value in self.table().items() if key not in table}
        return read({**before, **{k: v for k, v in table.items() if v is not None}})

    def table(self) -> dict[str, Any]:
        """Return it as a plain table, without what is as by default."""
        plain: dict[str, Any] = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if getattr(self, each.name) != getattr(_PLAIN, each.name)
        }
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in plain.items()}


_PLAIN = Route()


def read(table: Mapping[str, object]) -> Route:
    """Return the route of a table.

    Raises:
        RouteError: a key or a value makes no sense.
    """
    for key in table:
        if key not in _READERS:
            known = ", ".join(_READERS)
            raise RouteError(f"{key:.50} is nothing that a route has; known are {known}")
    values: dict[str, Any] = {key: _READERS[key](key, value) for key, value in table.items()}
    route = Route(**values)
    if route.alias is not None and len(values) > 1:
        raise RouteError("a name with an alias has nothing else: its model has the route")
    if route.weights and route.shadow in route.weights:
        raise RouteError(f"version {route.shadow} is the shadow, and has a weight too: take one")
    return route


def _versions(key: str, value: object) -> dict[str, object]:
    if not isinstance(value, Mapping) or len(value) > MAX_VERSIONS:
        raise RouteError(f"{key} must be a table of up to {MAX_VERSIONS} versions")
    for version in value:
        if version != "" and not (isinstance(version, str) and VERSION.fullmatch(version)):
            raise RouteError(
                f"{key} has {shown(version, 80)}, which is no version: {VERSION_WORDS}"
            )
    return dict(value)


def _weights(key: str, value: object) -> dict[str, float]:
    found = {}
    for version, weight in _versions(key, value).items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= 1e9:  # type: ignore[operator]  # a number
            raise RouteError(f"the weight of {version!r} is {shown(weight)}; give 0 to 1e9")
        found[version] = float(weight)  # type: ignore[arg-type]  # a number
    if found and not any(found.values()):
        raise RouteError("all weights are 0: give one version at least a weight above 0")
    return found


def _hold(key: str, value: object) -> dict[str, int]:
    found = {}
    for version, count in _versions(key, value).items():
        if type(count) is not int or not 1 <= count <= MAX_WORKERS:
            raise RouteError(f"hold of {version!r} is {shown(count)}; give a number of workers")
        found[version] = count
    return found


def _shadow(key: str, value: object) -> str:
    if not isinstance(value, str) or not VERSION.fullmatch(value):
        raise RouteError(f"{key} is {shown(value, 80)}, which is no version: {VERSION_WORDS}")
    return value


def _share(key: str, value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= 1:  # type: ignore[operator]  # a number
        raise RouteError(f"{key} is {shown(value)}; give a number above 0, and 1 at most")
    return float(value)  # type: ignore[arg-type]  # a number


def _alias(key: str, value: object) -> str:
    if not isinstance(value, str) or not _is_name(value):
        raise RouteError(f"{key} is {shown(value, 80)}; give a model, or MODEL@VERSION")
    return value


_READERS = {
    "weights": _weights,
    "hold": _hold,
    "shadow": _shadow,
    "shadow_share": _share,
    "alias": _alias,
}


def check(routes: Mapping[str, Route]) -> None:
    """Refuse routes that do not go together.

    Raises:
        RouteError: there are too many, a name is none, or an alias leads to an alias.
    """
    if len(routes) > MAX_ROUTES:
        raise RouteError(f"{MAX_ROUTES:,} names at most have routes")
    for name, route in routes.items():
        if not _is_name(name):
            raise RouteError(f"a model's name is printable text of 1 to {MAX_NAME} characters")
        if AT in name and route.alias is None:  # the model would have two routes
            raise RouteError(
                f"{name:.100} has an {AT}: a route is for a model, and names its versions"
            )
        if route.alias is not None and (route.alias == name or _alias_of(routes, route.alias)):
            raise RouteError(f"{name:.100} is an alias of an alias: name the model itself")


def _is_name(text: str) -> bool:
    """Whether it may be told to peers: what is not printable may have no form in UTF-8."""
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def _alias_of(routes: Mapping[str, Route], name: str) -> str | None:
    return routes[name].alias if name in routes else None


class Shares:
    """Deals items out by weights, so evenly that each version has what it is due at any time.

    Not at random: of two versions neither is ever a whole item off its share.

    Args:
        weights: by version; those of 0 get nothing.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = {version: weight for version, weight in weights.items() if weight > 0}
        total = sum(self.weights.values())
        self.parts = {version: weight / total for version, weight in self.weights.items()}
        self._given = dict.fromkeys(self.parts, 0)
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self.parts)

    def deal(self, count: int) -> list[tuple[str, int]]:
        """Return which versions get so many items, and how many each; nothing without versions."""
        if len(self.parts) < 2:
            return [(version, count) for version in self.parts]
        self._count += count
        left, given = count, dict.fromkeys(self.parts, 0)
        due = {v: part * self._count - self._given[v] for v, part in self.parts.items()}
        if count > len(due):  # most of many go at once
            for version, items in due.items():
                given[version] = max(0, min(left, math.floor(items) - 1))
                left -= given[version]
        for _ in range(left):
            version = max(due, key=lambda each: due[each] - given[each])
            given[version] += 1
        for version, items in given.items():
            self._given[version] += items
        return [(version, items) for version, items in given.items() if items]
