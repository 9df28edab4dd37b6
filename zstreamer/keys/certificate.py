"""The text of a key's file: pyzmq's certificate format, with metadata and the brokers' keys.

    metadata
        role = "client"
        name = "web"
        tenant = "shop"
    curve
        public-key = "…"
        secret-key = "…"        in the file of the program that the key is for, nowhere else
    broker
        server-key = "…"        the broker's public key; two lines while it is being rotated

`zmq.auth.load_certificate` reads these files too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from zstreamer.keys.ring import Principal, Role, is_tenant
from zstreamer.keys.secrets import Pair, Secret, is_key

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of keys, which are names of files too."""

LINES = 1000
"""Lines of one file."""

_PUBLIC_BANNER = "#   zstreamer: public certificate, made {made}.\n"
_PRIVATE_BANNER = (
    "#   zstreamer: SECRET key, made {made}. It is for one program: give it to no other,\n"
    "#   and keep its permissions (chmod 600).\n"
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one file says.

    Attributes:
        role, name: whose key it is.
        made: the day, as YYYY-MM-DD.
        public: the key, as text.
        secret: the other half, where the file has it.
        tenant: to whom the key's work counts; empty for nobody.
        models: the only ones that a worker's key may serve; empty for all.
        servers: public keys of which a broker must prove one.
    """

    role: Role
    name: str
    made: str
    public: bytes
    secret: Secret | None = None
    tenant: str = ""
    models: tuple[str, ...] = ()
    servers: tuple[bytes, ...] = ()

    @property
    def principal(self) -> Principal:
        """Whom the key stands for."""
        return Principal(self.public, self.name, self.role, self.tenant, frozenset(self.models))

    @property
    def pair(self) -> Pair | None:
        """Both halves, where the file has them."""
        return None if self.secret is None else Pair(self.public, self.secret)

    def bare(self) -> Certificate:
        """Return the same without the secret key and the brokers' keys: what a broker keeps."""
        return replace(self, secret=None, servers=())

    def text(self) -> str:
        """Return the text of the file."""
        banner = (_PUBLIC_BANNER if self.secret is None else _PRIVATE_BANNER).format(made=self.made)
        lines = [banner, "metadata"]
        facts = {"role": self.role.value, "name": self.name, "made": self.made}
        if self.tenant:
            facts["tenant"] = self.tenant
        lines += _lines(facts.items())
        lines += _lines(("model", each) for each in self.models)
        lines.append("curve")
        lines += _lines([("public-key", self.public.decode())])
        if self.secret is not None:
            lines += _lines([("secret-key", self.secret.reveal().decode())])
        if self.servers:
            lines.append("broker")
            lines += _lines(("server-key", each.decode()) for each in self.servers)
        return "\n".join(lines) + "\n"


def _lines(facts: Iterable[tuple[str, str]]) -> list[str]:
    return [f'    {name} = "{value}"' for name, value in facts]


def read(text: str) -> Certificate:
    """Return what a file says.

    Raises:
        ValueError: it is no certificate of zstreamer's; the message never shows the text.
    """
    found: dict[str, list[str]] = {}
    for line in text.splitlines()[:LINES]:
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            found.setdefault(name.strip(), []).append(value.strip().strip("\"'"))
    role = _role(_one(found, "role"))
    name = _one(found, "name")
    if not NAME.fullmatch(name):
        raise ValueError("its name is not one: letters, digits, dots, dashes, up to 64")
    public = _key(_one(found, "public-key"), "public-key")
    secret = None
    if "secret-key" in found:
        secret = Secret(_key(_one(found, "secret-key"), "secret-key"))
        if not Pair(public, secret).matches:
            raise ValueError("its secret key does not belong to its public key")
    if not all(map(is_tenant, (*found.get("tenant", ()), *found.get("model", ())))):
        raise ValueError("its tenant or a model is too long, or cannot be printed")
    return Certificate(
        role,
        name,
        found.get("made", [""])[0],
        public,
        secret,
        found.get("tenant", [""])[0],
        tuple(found.get("model", ())),
        tuple(_key(each, "server-key") for each in found.get("server-key", ())),
    )


def _one(found: dict[str, list[str]], name: str) -> str:
    values: Sequence[str] = found.get(name, ())
    if len(values) != 1:
        raise ValueError(f"it has {len(values) or 'no'} {name}, and must have one")
    return values[0]


def _role(value: str) -> Role:
    try:
        return Role(value)
    except ValueError:
        raise ValueError("its role is not client, worker or broker") from None


def _key(value: str, name: str) -> bytes:
    key = value.encode()
    if not is_key(key):
        raise ValueError(f"its {name} is not a key of 40 characters")
    return key
