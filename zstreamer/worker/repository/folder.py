"""The folder of a model repository: a folder for each model, or for each version of one.

    models/
      greet/model.toml            a model without versions
      bert/1/model.toml           version 1 of bert, with its code and weights beside it
      bert/2/model.toml

A folder or a model.toml that is a link out of the repository is left out. What the model itself
opens is its own affair: its code may be a link, as Python imports it.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from zstreamer.config import WorkerConfig, to_json
from zstreamer.setting import VERSION, VERSION_WORDS, ConfigError, settings, shown
from zstreamer.sources import load
from zstreamer.wire.offers import MAX_OFFERS
from zstreamer.wire.protocol import MAX_NAME
from zstreamer.worker.target import HUB

FILE = "model.toml"

KEYS = (
    *("target", "num", "devices", "batch_size", "max_latency", "latency_target", "max_batch_cost"),
    *("predict_timeout", "boot_attempts", "boot_timeout", "init_args", "init_kwargs"),
    *("prepare_workers", "task", "trust_remote_code", "drain_grace"),
)
"""Settings of a worker that a model's file may have; the others are the host's."""

LOAD = "load"
"""Whether the model is loaded when the host starts."""


class Entry(NamedTuple):
    """A model, or a version of one; the version is empty where it has none."""

    name: str
    version: str
    folder: Path

    @property
    def place(self) -> str:
        """Where its file is in the repository, for people."""
        return "/".join(filter(None, (self.name, self.version, FILE)))


class Found(NamedTuple):
    """What a look has found, and in words what is left out and why."""

    entries: list[Entry]
    odd: list[str]


class _Place(NamedTuple):
    """A folder, and whether it lies in the repository: it may be a link."""

    name: str
    path: str
    inside: bool

    @property
    def file(self) -> Path:
        """Where its model's file would be."""
        return Path(self.path, FILE)


def look(root: Path) -> Found:
    """Return what is in the folder now, in the order of the names.

    It is called once a second: an entry that is neither a folder nor a link costs no system call.

    Raises:
        ConfigError: the folder cannot be read.
    """
    found = Found([], [])
    root = Path(os.path.realpath(root))
    for place in _places(root, str(root), found.odd):
        if _has_file(place):
            _add(found, root, place.name, "", place)
            _name_hidden(found, root, place)
        elif place.inside:
            try:
                versions = _places(root, place.path, found.odd)
            except ConfigError as error:
                found.odd.append(str(error))
                continue
            for version in filter(_has_file, versions):
                _add(found, root, place.name, version.name, version)
    if len(found.entries) > MAX_OFFERS:
        found.odd.append(f"{root} has more than {MAX_OFFERS:,} models: the others are left out")
        del found.entries[MAX_OFFERS:]
    return found


def _places(root: Path, folder: str, odd: list[str]) -> list[_Place]:
    """Return the folders in one that lies in the repository; what cannot be told is odd."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for each in entries:
                if each.name.startswith("."):
                    continue
                try:
                    if each.is_dir():
                        inside = not each.is_symlink() or _is_inside(root, each.path)
                        found.append(_Place(each.name, each.path, inside))
                except OSError as error:  # such as a link to itself
                    odd.append(f"{shown(each.path, 300)} is left out: {error.strerror}")
    except OSError as error:
        raise ConfigError(f"cannot read the folder {folder}: {error.strerror}") from None
    return sorted(found)


def _has_file(place: _Place) -> bool:
    try:
        return stat.S_ISREG(place.file.stat().st_mode)
    except OSError:  # there is none, or it must not be looked at
        return False


def _name_hidden(found: Found, root: Path, place: _Place) -> None:
    """Say which versions a folder has that is a model itself, so that they are none."""
    try:
        versions = _places(root, place.path, []) if place.inside else []
        names = [each.name for each in versions if _has_file(each)]
    except ConfigError:  # it may be passed through, and its code imported, but not listed
        return
    if names:
        words = f"the {FILE} beside them makes their folder one model; move it away to have them"
        found.odd.append(f"{shown(names, 300)} in {place.path} are left out: {words}")


def _add(found: Found, root: Path, name: str, version: str, place: _Place) -> None:
    why = ""
    if not name.isprintable() or "@" in name or len(name) > MAX_NAME - 1 - len(version):
        why = f"a model's name is printable text without @ of up to {MAX_NAME} characters"
    elif version and not VERSION.fullmatch(version):
        why = f"a version has {VERSION_WORDS}"
    elif not (place.inside and (not place.file.is_symlink() or _is_inside(root, place.file))):
        why = "it is a link out of the repository"
    if why:
        found.odd.append(f"{shown(place.path, 300)} is left out: {why}")
    else:
        found.entries.append(Entry(name, version, Path(place.path)))


def _is_inside(root: Path, path: str | Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def is_wanted(entry: Entry) -> bool:
    """Whether a model is to be loaded when the host starts.

    Raises:
        ConfigError: its file cannot be read, or makes no sense.
    """
    return _table(entry)[1]


def config(entry: Entry, host: WorkerConfig) -> WorkerConfig:
    """Return what the workers of a model are told.

    Args:
        entry: the model.
        host: what the host was told, which holds where the model's file says nothing.

    Raises:
        ConfigError: the file cannot be read, or makes no sense.
    """
    values = _table(entry)[0]
    if not values.get("target"):
        raise ConfigError(f'{entry.place} has no target: write target = "module:Class"')
    values |= {"repository": None, "model": entry.name, "version": entry.version or None}
    values["import_path"] = (str(entry.folder), *host.import_path)
    target = str(values["target"])
    if target.startswith(HUB):
        values |= _of_hub(entry, host, values)
    try:
        found = replace(host, **values)
        to_json(found)  # as its workers are told
    except ConfigError as error:
        raise ConfigError(f"{entry.place}: {error}") from None
    return found


def _of_hub(entry: Entry, host: WorkerConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a model of the hub, or in a folder beside its file."""
    target = values["target"]
    folder = entry.folder / target.removeprefix(HUB)
    try:
        beside = folder.is_dir()
        inside = _is_inside(Path(os.path.realpath(entry.folder)), folder)
    except (OSError, ValueError) as error:  # too long a name, or one that must not be looked at
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{entry.place}: target is {shown(target, 300)}: {why}") from None
    if beside and not inside:
        raise ConfigError(f"{entry.place}: target is {target!r}, out of its folder")
    if beside:
        target = f"{HUB}{folder}"
    chosen = {key: values.get(key, getattr(host, key)) for key in ("task", "trust_remote_code")}
    kwargs = {**values.get("init_kwargs", host.init_kwargs), **chosen}
    return {"target": target, "init_kwargs": kwargs, "task": None, "trust_remote_code": False}


def _read(entry: Entry) -> dict[str, object]:
    path = entry.folder / FILE
    try:
        return load(path)
    except (
        ConfigError
    ) as error:  # its words are for callers too, who need not know whose disk it is
        raise ConfigError(str(error).replace(str(path), entry.place)) from None


def _table(entry: Entry) -> tuple[dict[str, Any], bool]:
    """Return the settings in a model's file, and whether it is to be loaded at the start."""
    place = entry.place
    kinds = {each.name: each.kind for each in settings(WorkerConfig) if each.name in KEYS}
    values: dict[str, Any] = {}
    wanted = False
    for key, value in _read(entry).items():
        name = key.replace("-", "_")
        if name == LOAD:
            if not isinstance(value, bool):
                raise ConfigError(f"{place}: {LOAD} is {shown(value)}: give true or false")
            wanted = value
            continue
        if name not in kinds:
            known = (*KEYS, LOAD)
            close = difflib.get_close_matches(name, known, 1)
            fix = f"did you mean {close[0]}?" if close else "known are " + ", ".join(known)
            raise ConfigError(f"{place} has {key}, which nothing reads; {fix}")
        try:
            values[name] = kinds[name].parse(value)
        except ValueError as error:
            raise ConfigError(f"{place}: {key} is {shown(value, 1000)}: {error}") from None
    return values, wanted
