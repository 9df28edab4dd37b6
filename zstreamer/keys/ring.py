"""Who may pass: public keys and whom each stands for. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from zstreamer.keys.secrets import raw

MAX_TENANT = 255
"""Characters of a tenant's name."""

ANY_TENANT = "*"
"""The tenant of a key whose program says itself to whom its work counts, as a gateway does."""


def is_tenant(name: object) -> bool:
    """Whether this may name a tenant: nothing that breaks a line of a file or of a log."""
    return isinstance(name, str) and len(name) <= MAX_TENANT and name.isprintable()


def tenant_of(said: str, named: str | None) -> str | None:
    """Return to whom somebody's work counts; None where it says one, and may not.

    Each tenant has turns and limits of its own, so whoever may make up names has no limit.

    Args:
        said: the tenant that it says itself; empty for none.
        named: the one that its key or token names; None where no keys are asked for.
    """
    if named is None or named == ANY_TENANT:
        return said
    return named or (None if said else "")


class Role(Enum):
    """What a key is for."""

    CLIENT = "client"
    WORKER = "worker"
    BROKER = "broker"


class Principal(NamedTuple):
    """Whom a key stands for.

    Attributes:
        key: the public key, as text.
        name: what people call it.
        role: what it is for.
        tenant: to whom its work counts; empty for nobody.
        models: the only ones that it may serve; empty for all.
    """

    key: bytes
    name: str
    role: Role
    tenant: str = ""
    models: frozenset[str] = frozenset()

    def may_serve(self, model: str) -> bool:
        """Whether a worker with this key may register the model."""
        return not self.models or model in self.models


class Ring:
    """The allow-list of one broker at one moment.

    Args:
        principals: those that may pass, each in its role.
    """

    def __init__(self, principals: Iterable[Principal] = ()) -> None:
        self._by_text = {each.key: each for each in principals}
        self._by_bytes = {raw(key): each for key, each in self._by_text.items()}

    def __len__(self) -> int:
        return len(self._by_text)

    def of(self, key: bytes) -> Principal | None:
        """Return whom a public key stands for, given as 32 bytes or as text."""
        return self._by_bytes.get(key) or self._by_text.get(key)

    def gone(self, later: Ring) -> frozenset[bytes]:
        """Return the keys, as text, that a later list does not have, or has for another role."""
        after = later._by_text
        return frozenset(
            key
            for key, each in self._by_text.items()
            if key not in after or after[key].role is not each.role
        )

    def changed(self, later: Ring) -> dict[bytes, Principal]:
        """Return whom keys stand for in a later list, where that is not as it was."""
        before = self._by_text
        return {
            key: each
            for key, each in later._by_text.items()
            if key in before and before[key] != each
        }
