"""What a client is told, checked once."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from zstreamer import codec
from zstreamer.client.calls import Call
from zstreamer.client.items import Items, listed
from zstreamer.errors import BadRequest
from zstreamer.wire import transport
from zstreamer.wire.protocol import MAX_BUDGET, MAX_NAME


class Settings:
    """What every client is told, checked once.

    Raises:
        ValueError: an address or a time makes no sense; the message says which and the mend.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        model: str,
        timeout: float,
        connect_timeout: float,
        keys: object,
        heartbeat: float,
        heartbeat_timeout: float,
    ) -> None:
        self.addresses = addresses_of(address)
        if keys is not None:
            raise ValueError("this release has no keys yet; leave keys=None")
        self.codec = codec.PLAIN
        self.model = model
        self.timeout = positive_seconds("timeout", timeout)
        self.connect_timeout = positive_seconds("connect_timeout", connect_timeout)
        self.options = transport.Options(heartbeat, heartbeat_timeout)

    def named(self, model: str | None) -> str:
        """The model of that name, or the client's own where none is given.

        Raises BadRequest where it cannot be a model's name.
        """
        name: object = self.model if model is None else model  # whatever a caller gives
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
            raise BadRequest(f"a model's name has 1 to {MAX_NAME} characters, not {name!r:.50}")
        return name

    def call(
        self,
        items: Items,
        model: str | None,
        timeout: float | None,
        priority: int,
        idempotent: bool,
        return_exceptions: bool,
    ) -> Call:
        """Return the call of these items, encoded."""
        rows = listed(items)
        budget = self.timeout if timeout is None else positive_seconds("timeout", timeout)
        now = time.monotonic()
        payloads = self.codec.encode_all(rows, "items[{}]")
        return Call(
            payloads,
            self.named(model),
            now + min(budget, MAX_BUDGET / 1000),
            now,
            priority,
            not idempotent,
            return_exceptions,
            self.codec.decode,
        )


def addresses_of(given: str | Sequence[str]) -> list[str]:
    """Return the brokers' addresses, each by itself; a text may hold several, between commas.

    Raises:
        ValueError: there is none, or one makes no sense; the message says which and the fix.
    """
    addresses = given.split(",") if isinstance(given, str) else list(given)
    addresses = [each.strip() for each in addresses if each.strip()]
    if not addresses:
        raise ValueError("no address given; try tcp://127.0.0.1:7787")
    for each in addresses:
        if not each.startswith(("tcp://", "ipc://")):
            raise ValueError(f"address {each!r} must look like tcp://HOST:7787 or ipc://PATH")
    return addresses


def positive_seconds(name: str, value: float) -> float:
    """Return a time as a float; raise ValueError where it is none above 0. May be infinite."""
    number: object = value  # whatever a caller without type checks gives
    if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
    return math.inf if math.isinf(value) else float(value)
