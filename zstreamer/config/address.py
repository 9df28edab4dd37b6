"""Where brokers are: which addresses a program can connect to, and who can reach an endpoint."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from zstreamer.setting import ConfigError


def addresses(
    given: str | Iterable[str], name: str = "address", port: int = 7787
) -> tuple[str, ...]:
    """Return the addresses to connect to, one by one; a text may hold several, with commas.

    name: what they are called where one is wrong.
    port: the one that a broker usually has for them.

    Raises ConfigError where there is none, or where a program could not connect to one.
    """
    fix = f"give tcp://HOST:{port}, tcp+dns://NAME:{port}, file:/PATH or ipc://PATH"
    value: object = given  # whatever a caller without type checks gives
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} {value!r:.100} is not text: {fix}")
    found = []
    for each in value.split(",") if isinstance(value, str) else value:
        if not isinstance(each, str):
            raise ConfigError(f"{name} {each!r:.100} is not text: {fix}")
        if not (address := each.strip()):
            continue
        match = re.fullmatch(r"tcp(?:\+dns)?://.+:(\d{1,5})|ipc://.+|file:/.+", address)
        if match is None or not 0 < int(match[1] or 1) < 65536:
            raise ConfigError(f"{name} {address!r} is not an address: {fix}")
        found.append(address)
    if not found:
        raise ConfigError(f"no {name} to connect to: {fix}")
    return tuple(found)


def is_looked_up(address: str) -> bool:
    """Whether an address names brokers that may change: a DNS name, or files."""
    return address.startswith(("tcp+dns:", "file:"))


def stays_on_machine(endpoint: str) -> bool:
    """Whether only programs of this machine can reach a ZeroMQ endpoint once it is bound."""
    scheme, _, place = endpoint.partition("://")
    if scheme != "tcp":
        return scheme in ("ipc", "inproc")
    host = re.sub(r":(\d+|\*)$", "", place).strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
