"""The folder of a model repository: a folder for each model, or for each version of one.

    models/
      greet/model.toml            a model without versions
      bert/1/model.toml           version 1 of bert, with its code and weights beside it
      bert/2/model.toml

Nothing is followed out of the folder, through links either.
"""

from __future__ import annotations

import difflib
import os
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


def look(root: Path) -> Found:
    """Return what is in the folder now, in the order of the names.

    Raises:
        ConfigError: the folder cannot be read.
    """
    found = Found([], [])
    root = Path(os.path.realpath(root))
    for folder in _folders(root):
        if _has_file(folder):
            _add(found, root, folder.name, "", folder)
        elif _is_inside(root, folder):
            try:
                versions = _folders(folder)
            except ConfigError as error:
                found.odd.append(str(error))
                continue
            for version in filter(_has_file, versions):
                _add(found, root, folder.name, version.name, version)
    if len(found.entries) > MAX_OFFERS:
        found.odd.append(f"{root} has more than {MAX_OFFERS:,} models: the others are left out")
        del found.entries[MAX_OFFERS:]
    return found


def _folders(folder: Path) -> list[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        return [path for path in paths if path.is_dir()]
    except OSError as error:
        raise ConfigError(f"cannot read the folder {folder}: {error.strerror}") from None


def _has_file(folder: Path) -> bool:
    try:
        return (folder / FILE).exists()
    except OSError:  # it must not be looked into
        return False


def _add(found: Found, root: Path, name: str, version: str, folder: Path) -> None:
    why = ""
    if not name.isprintable() or "@" in name or len(name) > MAX_NAME - 1 - len(version):
        why = f"a model's name is printable text without @ of up to {MAX_NAME} characters"
    elif version and not VERSION.fullmatch(version):
        why = f"a version has {VERSION_WORDS}"
    elif not (_is_inside(root, folder) and _is_inside(root, folder / FILE)):
        why = "it is a link out of the repository"
    if why:
        found.odd.append(f"{shown(str(folder), 300)} is left out: {why}")
    else:
        found.entries.append(Entry(name, version, folder))


def _is_inside(root: Path, path: Path) -> bool:
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
