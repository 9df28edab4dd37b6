"""Reads and writes files that nobody else may read, and tells whether a file has changed.

A file with loose modes is refused.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import TypeAlias

from zstreamer.setting import ConfigError

MAX_SIZE = 64 * 1024
"""Bytes of a key's file."""

Stamp: TypeAlias = "tuple[int, int, int]"
"""Differs once a file was changed or replaced: time in nanoseconds, inode, size in bytes."""


def stamp(path: Path) -> Stamp:
    """Return the stamp of a file as it is now; raises OSError where it cannot be looked at."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


def stamp_or_none(path: Path) -> Stamp | None:
    """Return the stamp of a file as it is now, or None where it cannot be looked at."""
    try:
        return stamp(path)
    except OSError:
        return None


def read(path: Path) -> str:
    """Return the text of a file that only its owner may read.

    Raises:
        ConfigError: it is not there, cannot be read, or others may read or change it.
    """
    try:
        # NONBLOCK: a pipe in its place must not hang the program.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"cannot read the key file {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise ConfigError(f"{path} is not a file: give the file of a key")
        _check(path, state, "600")
        try:
            return file.read(MAX_SIZE).decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not the file of a key: it is not text") from None
        except OSError as error:
            raise ConfigError(f"cannot read the key file {path}: {error.strerror}") from None


def check_folder(path: Path) -> None:
    """Raise ConfigError where a folder is not there, or others may look into it."""
    try:
        state = path.stat()
    except OSError as error:
        raise ConfigError(
            f"no folder of keys at {path} ({error.strerror}): make one with "
            f"`zstreamer keys --keys {path} init`"
        ) from None
    if not stat.S_ISDIR(state.st_mode):
        raise ConfigError(f"{path} is not a folder of keys")
    _check(path, state, "700")


def write(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a file that only its owner may read, whole or not at all.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if not replace and path.exists():
            raise ConfigError(f"{path} is there already: remove it, or choose another name")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        part.rename(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def make_folder(path: Path) -> None:
    """Make a folder that only its owner can enter; fine where there is one."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path}: {error.strerror}") from None


def _check(path: Path, state: os.stat_result, mode: str) -> None:
    user = os.geteuid()
    if state.st_uid not in (user, 0) and user != 0:
        raise ConfigError(
            f"{path} belongs to another user, who could change it: chown {user} {path}"
        )
    if state.st_mode & _loose(state, user):
        raise ConfigError(
            f"{path} is open to others (mode {stat.S_IMODE(state.st_mode):04o}), so its keys may "
            f"be known or changed: chmod {mode} {path}"
        )


def _loose(state: os.stat_result, user: int) -> int:
    """Bits that may not be set. A group may read what root has given to it, as ssh has it."""
    if state.st_uid == user:
        return 0o077
    if stat.S_ISDIR(state.st_mode):  # what is in it is looked at by itself
        return 0 if state.st_mode & stat.S_ISVTX else 0o022
    return 0o027
