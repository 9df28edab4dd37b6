"""What a client or a worker shows to brokers, and what it asks of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from zstreamer.keys import folder
from zstreamer.keys.certificate import Certificate
from zstreamer.keys.files import stamp_or_none
from zstreamer.keys.ring import Role
from zstreamer.keys.secrets import Curve
from zstreamer.setting import ConfigError

VARIABLE = "ZSTREAMER_KEYS"

Keys: TypeAlias = "str | os.PathLike[str] | Credentials | None"
"""What an argument ``keys`` may be, see `given`."""


class Credentials:
    """One program's pair and the brokers' keys that it trusts, from its file.

    The file is read again when it has changed, at the next connection.

    Args:
        path: the file, or a folder of `zstreamer keys` that has issued one for this role.
        role: what the program is.

    Raises:
        ConfigError: the file is missing, open to others, or for another role.
    """

    def __init__(self, path: str | os.PathLike[str], role: Role) -> None:
        self._given = Path(path)
        self._role = role
        self.path = self._file()
        self._stamp = stamp_or_none(self.path)  # first: a change while it is read is seen later
        self._certificate = self._read()

    def __repr__(self) -> str:
        return f"<Credentials {self._certificate.name!r} of {self.path}>"

    @property
    def name(self) -> str:
        """What people call the key."""
        return self._certificate.name

    @property
    def servers(self) -> int:
        """How many brokers' keys it trusts."""
        return len(self._certificate.servers)

    def curve(self, attempt: int) -> Curve:
        """Return what a connection needs; attempts take the trusted keys in turn.

        A file that has changed and cannot be read is left alone: the pair of before stays.
        """
        stamp = stamp_or_none(self.path)
        if stamp != self._stamp:
            try:
                self._certificate = self._read()
                self._stamp = stamp
            except ConfigError:
                pass
        servers = self._certificate.servers
        pair = self._certificate.pair
        assert pair is not None  # noqa: S101  # `_read` has seen to it
        return Curve(pair, servers[attempt % len(servers)])

    def _read(self) -> Certificate:
        found = folder.read(self.path)
        if found.role is not self._role:
            raise ConfigError(
                f"{self.path} is the key of a {found.role.value}, and this program is a "
                f"{self._role.value}: make one with `zstreamer keys {self._role.value} NAME`"
            )
        if found.secret is None:
            raise ConfigError(
                f"{self.path} has the public half only: give NAME.key_secret, which "
                f"`zstreamer keys {self._role.value} NAME` has written"
            )
        if not found.servers:
            raise ConfigError(
                f"{self.path} has no server-key, so no broker could be trusted: add the lines "
                "that `zstreamer keys show` prints on the broker's machine"
            )
        return found

    def _file(self) -> Path:
        if not self._given.is_dir():
            return self._given
        issued = sorted((self._given / folder.ISSUED).glob("*.key_secret"))
        role = self._role
        found = [each for each in issued if folder.read(each).role is role]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ConfigError(
                f"{self._given} has no {role.value}'s key in {folder.ISSUED}/: make one with "
                f"`zstreamer keys --keys {self._given} {role.value} NAME`, or give its file"
            )
        names = ", ".join(str(each) for each in found[:5])
        raise ConfigError(f"{self._given} has several {role.value}s' keys; give one of {names}")


def given(keys: Keys, role: Role) -> Credentials | None:
    """Return the credentials that an argument ``keys`` means.

    Args:
        keys: a path, or credentials; empty for none; None for what ZSTREAMER_KEYS says, if it does.
        role: what the program is.

    Raises:
        ConfigError: the file cannot be used.
    """
    if keys is None:
        keys = os.environ.get(VARIABLE, "")
    if isinstance(keys, Credentials):
        return keys
    path: object = keys  # whatever a caller without type checks gives
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"keys must be the path of a key's file, not a {type(path).__name__}")
    return Credentials(keys, role) if os.fspath(keys) else None
