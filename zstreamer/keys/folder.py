"""The folder of keys that belongs to a broker, and what `zstreamer keys` does with it.

broker.key_secret           the broker's own pair
broker.next.key_secret      the one that follows, while it is being rotated
clients/NAME.key            who may call: public keys
workers/NAME.key            who may serve
http/NAME.key               whose bearer tokens are good: hashes
issued/NAME.key_secret      the file for the program that a key is made for; to be moved there
revoked/                    what was taken off the lists
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from zstreamer.keys import bearer, certificate, files
from zstreamer.keys.bearer import Caller
from zstreamer.keys.certificate import NAME, Certificate
from zstreamer.keys.ring import MAX_TENANT, Role, is_tenant
from zstreamer.keys.secrets import Pair
from zstreamer.setting import ConfigError

LISTS = {Role.CLIENT: "clients", Role.WORKER: "workers"}
HTTP = "http"
ISSUED = "issued"
REVOKED = "revoked"
BROKER = "broker.key_secret"
NEXT = "broker.next.key_secret"


class Folder:
    """One broker's keys.

    All methods raise ConfigError where a file is missing, loose or not what it should be.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    # What there is

    def check(self) -> None:
        """Raise ConfigError where it is not a folder of keys that nobody else can enter."""
        files.check_folder(self.path)

    def broker(self, file: str = BROKER) -> Certificate:
        """Return the broker's own key."""
        found = self._certificate(self.path / file)
        if found.role is not Role.BROKER or found.secret is None:
            raise ConfigError(
                f"{self.path / file} is not the key of a broker with its secret half: give the "
                "folder that `zstreamer keys init` made on the broker's machine"
            )
        return found

    @property
    def servers(self) -> tuple[bytes, ...]:
        """The broker's public keys that programs are to trust."""
        found = [self.broker()]
        if (self.path / NEXT).exists():
            found.append(self.broker(NEXT))
        return tuple(each.public for each in found)

    def listed(self) -> Iterator[Certificate]:
        """Yield the keys of clients and workers that may pass."""
        for role, name in LISTS.items():
            for path in sorted((self.path / name).glob("*.key")):
                yield self.entry(path, role)

    def entry(self, path: Path, role: Role) -> Certificate:
        """Return one key of a list."""
        found = self._certificate(path)
        if found.role is not role:
            raise ConfigError(f"{path} is the key of a {found.role.value}, not of a {role.value}")
        return found

    def callers(self) -> Iterator[Caller]:
        """Yield whose bearer tokens are good."""
        for path in sorted((self.path / HTTP).glob("*.key")):
            yield caller(path)

    # What is made

    def create(self) -> Certificate:
        """Make the folder and the broker's pair.

        Raises:
            ConfigError: there is one already.
        """
        if (self.path / BROKER).exists():
            raise ConfigError(
                f"{self.path} has the keys of a broker already: nothing was changed; "
                "`zstreamer keys rotate` gives it a new one"
            )
        for each in (".", *LISTS.values(), HTTP, ISSUED, REVOKED):
            files.make_folder(self.path / each)
        self.check()
        return self._own(BROKER)

    def add(
        self, role: Role, name: str, tenant: str = "", models: Sequence[str] = ()
    ) -> tuple[Certificate, Path]:
        """Make a key; return it, and the file to give to its program."""
        self._free(name)
        for each in (tenant, *models):
            _plain(each)
        pair = Pair.new()
        made = Certificate(
            role, name, _today(), pair.public, pair.secret, tenant, tuple(models), self.servers
        )
        issued = self.path / ISSUED / f"{name}.key_secret"
        files.write(issued, made.text())
        # The list comes last: what it names is whole.
        files.write(self.path / LISTS[role] / f"{name}.key", made.bare().text())
        return made, issued

    def add_caller(self, name: str, tenant: str = "") -> str:
        """Make a bearer token and return it; it is kept nowhere."""
        self._free(name)
        _plain(tenant)
        token = bearer.new_token()
        kept = Caller(name, bearer.digest(token), tenant)
        files.write(self.path / HTTP / f"{name}.key", bearer.text(kept, _today()))
        return token

    def revoke(self, name: str) -> list[Path]:
        """Take a key off the lists, under whatever names it stands there.

        Args:
            name: of the key, or of its file without the ending.

        Returns:
            Where its entries lie now.

        Raises:
            ConfigError: no key has this name; or the key is revoked, but another entry cannot be
                read and may hold it too.
        """
        self.check()
        entries = self._entries()
        named = [path for path, (called, _) in entries.items() if name in (called, path.stem)]
        if not named:
            raise ConfigError(f"no key is called {name!r}: `zstreamer keys list` shows their names")
        held = {entries[path][1] for path in named} - {None}
        same = [path for path, (_, key) in entries.items() if key in held and path not in named]
        away = [self._put_away(path) for path in (*named, *same)]
        unread = [path for path, (_, key) in entries.items() if key is None and path not in named]
        if unread:
            raise ConfigError(
                f"{name} is revoked, but these cannot be read and may hold the same key: "
                + ", ".join(map(str, unread))
                + "; put them right or delete them"
            )
        return away

    def _entries(self) -> dict[Path, tuple[str, bytes | None]]:
        """Return what each entry is called, and what it lets in; None where it cannot be read."""
        found: dict[Path, tuple[str, bytes | None]] = {}
        for each in (*LISTS.values(), HTTP):
            for path in sorted((self.path / each).glob("*.key")):
                found[path] = path.stem, None
                with suppress(ConfigError):
                    if each == HTTP:
                        found[path] = caller(path)[:2]
                    else:
                        kept = read(path)
                        found[path] = kept.name, kept.public
        return found

    def rotate(self) -> list[Path]:
        """Make the broker's next key; return the issued files, which now trust it too."""
        if (self.path / NEXT).exists():
            raise ConfigError(
                "the broker's key is being rotated: once all programs have the new server-key, "
                "`zstreamer keys rotate --finish` takes it"
            )
        self.broker()
        self._own(NEXT)
        return self._reissue()

    def finish_rotation(self) -> Certificate:
        """Have the broker take its next key; return it."""
        following = self.broker(NEXT)
        old = self.broker()
        (self.path / NEXT).rename(self.path / BROKER)
        stamp = f"broker-{time.strftime('%Y%m%dT%H%M%S')}.key"
        files.write(self.path / REVOKED / stamp, old.bare().text())
        self._reissue()
        return following

    # Details

    def _own(self, file: str) -> Certificate:
        pair = Pair.new()
        made = Certificate(Role.BROKER, "broker", _today(), pair.public, pair.secret)
        files.write(self.path / file, made.text())
        return made

    def _reissue(self) -> list[Path]:
        """Have the files that are still here trust the broker's keys of now."""
        paths = sorted((self.path / ISSUED).glob("*.key_secret"))
        for path in paths:
            changed = replace(self._certificate(path), servers=self.servers)
            files.write(path, changed.text(), replace=True)
        return paths

    def _put_away(self, entry: Path) -> Path:
        name = entry.stem
        stamp = time.strftime("%Y%m%dT%H%M%S")
        target = self.path / REVOKED / f"{entry.parent.name}-{name}-{stamp}.key"
        try:
            entry.rename(target)
            (self.path / ISSUED / f"{name}.key_secret").unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot revoke {name}: {error.strerror}") from None
        return target

    def _free(self, name: str) -> None:
        self.check()
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be a key's name: use letters, digits, dots and dashes, up to 64"
            )
        for each in (*LISTS.values(), HTTP):
            if (self.path / each / f"{name}.key").exists():
                raise ConfigError(
                    f"a key is called {name!r} already: revoke it first, or choose another name"
                )

    def _certificate(self, path: Path) -> Certificate:
        return read(path)


def read(path: Path) -> Certificate:
    """Return the certificate in a file; raises ConfigError as `Folder` does."""
    text = files.read(path)
    try:
        return certificate.read(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not the file of a key: {error}") from None


def caller(path: Path) -> Caller:
    """Return the caller that a file keeps; raises ConfigError as `Folder` does."""
    text = files.read(path)
    try:
        return bearer.read(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not the file of a bearer token: {error}") from None


def _today() -> str:
    return time.strftime("%Y-%m-%d")


def _plain(text: str) -> None:
    if not is_tenant(text) or not set("\"'").isdisjoint(text) or text != text.strip():
        raise ConfigError(
            f"{text!r} cannot stand in a key's file: it has quotes, spaces at an end, characters "
            f"that cannot be printed such as line ends, or more than {MAX_TENANT} characters"
        )
