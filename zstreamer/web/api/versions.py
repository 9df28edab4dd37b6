"""Versions of models in paths: /models/{model}/versions/{version}.

bert/versions/2  ──>  the model bert@2, where workers announce this version
bert/versions/1  ──>  bert itself, where they announce none
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from zstreamer.errors import ModelNotFound
from zstreamer.setting import version_order
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.api.snapshot import Snapshot
from zstreamer.web.api.steps import Step

if TYPE_CHECKING:
    from zstreamer.web.api.exchange import Exchange

ONLY: Final = "1"
"""The version of a model whose workers announce none."""

_FRESH = 0.3
"""Seconds that a snapshot may be old which says that there is no such version."""


class Named(NamedTuple):
    """What a path names; the version is empty where it names none."""

    model: str
    version: str

    @property
    def path(self) -> str:
        """As it stands in a path."""
        return f"{self.model}/versions/{self.version}" if self.version else self.model


def split(rest: str) -> Named:
    """Return what ``{model}[/versions/{version}]`` names; the name of a model may have slashes."""
    model, found, version = rest.rpartition("/versions/")
    if found and model and version and "/" not in version:
        return Named(model, version)
    return Named(rest, "")


def find(exchange: Exchange, asked: Named, then: Callable[[str, Snapshot], Step]) -> Step:
    """Look up under which name the model is served, and go on with that and the snapshot.

    A version that is not known is looked for again at once, since it may have just come.
    """

    def first(snapshot: Snapshot) -> Step:
        try:
            model = served(snapshot, asked)
        except ModelNotFound:
            return exchange.look(again, _FRESH)
        return then(model, snapshot)

    def again(snapshot: Snapshot) -> Step:
        return then(served(snapshot, asked), snapshot)

    return exchange.look(first if asked.version else again)


def served(snapshot: Snapshot, asked: Named) -> str:
    """Return the name under which a model, or a version of it, is served.

    Raises:
        ModelNotFound: there is no such version; lists those there are.
    """
    name, version = asked
    if not version:
        return name
    row = snapshots.named(snapshot, name)
    alias = row.get("alias")
    if isinstance(alias, str):
        _, found, only = alias.rpartition("@")
        if found:
            if version == only:
                return name
            raise _no_version(asked, [only], [alias])
        name = alias
    known = listed(snapshot, name)
    away = row.get("versions")
    if not (known or row.get("workers")) and isinstance(away, Mapping):
        known = sorted(map(str, away), key=version_order)
    model = f"{name}@{version}"
    if model in snapshots.served(snapshot):
        return model
    if version == ONLY and not known:
        return name
    raise _no_version(asked, known or [ONLY], [f"{name}@{each}" for each in known] or [name])


def listed(snapshot: Snapshot, name: str) -> list[str]:
    """Return the versions of a model that workers serve now, the lowest numbers first."""
    begin = f"{name}@"
    known = snapshots.served(snapshot).items()
    found = [
        each[len(begin) :] for each, row in known if row.get("workers") and each.startswith(begin)
    ]
    return sorted(found, key=version_order)


def _no_version(asked: Named, versions: list[str], models: list[str]) -> ModelNotFound:
    there = "there is" if len(versions) == 1 else "there are"
    words = f"no version {asked.version[:50]!r} of model {asked.model!r:.100}; {there} "
    return ModelNotFound(words + ", ".join(map(repr, versions)), models)
