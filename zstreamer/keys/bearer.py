"""Bearer tokens of the gateway's callers. Pure: a token is never kept, only what it hashes to.

A token has 256 random bits, so a fast hash is enough: nobody can try them all.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from zstreamer.keys.ring import is_tenant

PREFIX = "zst_"
"""What each token begins with, so that people and scanners of repositories know what it is."""

MAX_LENGTH = 256
"""Characters of a token; a longer one is not looked at."""


class Caller(NamedTuple):
    """Whom a token stands for.

    Attributes:
        name: what people call it.
        digest: SHA-256 of the token.
        tenant: to whom its work counts; empty for nobody.
    """

    name: str
    digest: bytes
    tenant: str = ""


class Callers:
    """The tokens that are let in at one moment."""

    def __init__(self, callers: Iterable[Caller] = ()) -> None:
        self._callers = {each.digest: each for each in callers}

    def __len__(self) -> int:
        return len(self._callers)

    def of(self, authorization: str | None) -> Caller | None:
        """Return who sends this Authorization header, None where it names nobody."""
        if authorization is None or len(authorization) > MAX_LENGTH:
            return None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = digest(token.strip())
        # A look-up by hash tells nothing of the token, as nobody can choose what it hashes to.
        caller = self._callers.get(found)
        if caller is None or not hmac.compare_digest(caller.digest, found):
            return None
        return caller


def new_token() -> str:
    """Return a new token, which is shown to a person once."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


def text(caller: Caller, made: str) -> str:
    """Return the text of the file that keeps a caller."""
    lines = [
        f"#   zstreamer: what is kept of a bearer token, made {made}.",
        "metadata",
        '    role = "http"',
        f'    name = "{caller.name}"',
        f'    made = "{made}"',
    ]
    if caller.tenant:
        lines.append(f'    tenant = "{caller.tenant}"')
    lines += ["bearer", f'    sha256 = "{caller.digest.hex()}"']
    return "\n".join(lines) + "\n"


def read(text: str) -> Caller:
    """Return the caller that a file keeps.

    Raises:
        ValueError: it keeps none.
    """
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            facts[name.strip()] = value.strip().strip("\"'")
    try:
        kept = bytes.fromhex(facts["sha256"])
    except (KeyError, ValueError):
        raise ValueError("it has no sha256 of a token") from None
    if len(kept) != hashlib.sha256().digest_size or not facts.get("name"):
        raise ValueError("it has no name, or no sha256 of a token")
    if not is_tenant(tenant := facts.get("tenant", "")):
        raise ValueError("its tenant is too long, or cannot be printed")
    return Caller(facts["name"], kept, tenant)
