"""What a client is told, checked once."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Sequence

from zstreamer import codec
from zstreamer.client.calls import Call, Watch
from zstreamer.client.items import Items, listed
from zstreamer.client.tally import Tallies
from zstreamer.config import addresses, check_heartbeat
from zstreamer.errors import BadRequest
from zstreamer.keys import credentials
from zstreamer.keys.ring import MAX_TENANT, Role, is_tenant
from zstreamer.tracing import call as tracing
from zstreamer.wire import transport
from zstreamer.wire.protocol import MAX_BUDGET, MAX_NAME

MAX_SECONDS = MAX_BUDGET / 1000
"""The longest time that a call may take."""

MAX_PRIORITY = 2**63 - 1
"""The highest priority, and the lowest with a minus: what a message can hold."""


class Settings:
    """What every client is told, checked once.

    Attributes:
        tallies: what became of its calls.

    Raises:
        ValueError: an address, a time or a key's file makes no sense; the message says which, and
            how to fix it.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        model: str,
        timeout: float,
        connect_timeout: float,
        keys: credentials.Keys,
        heartbeat: float,
        heartbeat_timeout: float,
        tenant: str = "",
    ) -> None:
        if not is_tenant(tenant):
            raise ValueError(f"tenant must be printable text of up to {MAX_TENANT} characters")
        self.tenant = tenant
        self.addresses = addresses(address)
        self.credentials = credentials.given(keys, Role.CLIENT)
        self.codec = codec.PLAIN
        if words := _misnamed(model):
            raise ValueError(words)
        self.model = model
        self.timeout = positive_seconds("timeout", timeout)
        self._budget = min(self.timeout, MAX_SECONDS)
        self.connect_timeout = positive_seconds("connect_timeout", connect_timeout)
        self.options = transport.Options(
            positive_seconds("heartbeat", heartbeat),
            positive_seconds("heartbeat_timeout", heartbeat_timeout),
        )
        check_heartbeat(*self.options)
        self.tallies = Tallies()

    def named(self, model: str | None) -> str:
        """The model of that name, or the client's own where none is given.

        Raises BadRequest where it cannot be a model's name.
        """
        name = self.model if model is None else model
        if words := _misnamed(name):
            raise BadRequest(words)
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
        """Return the call of these items, encoded.

        Raises:
            TypeError: ``items`` is one item, or has no order; ``priority`` is no whole number.
            ValueError: ``timeout`` is not above 0, or ``priority`` is out of range.
            BadRequest: an item cannot be sent, or ``model`` cannot be a model's name.
        """
        rows = listed(items)
        budget = self.budget(timeout)
        payloads = self.codec.encode_all(rows, "items[{}]")
        name = self.named(model)
        return self.encoded(payloads, name, budget, priority, idempotent, return_exceptions)

    def encoded(
        self,
        payloads: list[bytes],
        model: str,
        budget: float,
        priority: int,
        idempotent: bool,
        return_exceptions: bool,
    ) -> Call:
        """Return the call of items that are payloads already; budget: seconds.

        Raises:
            TypeError, ValueError: as `call`, for ``priority``.
        """
        now = time.monotonic()
        call = Call(
            payloads,
            model,
            now + budget,
            now,
            whole_priority(priority),
            not idempotent,
            return_exceptions,
            self.codec.decode,
        )
        call.trace = tracing.begin(model, len(payloads))
        return call

    def watch(self, model: str | None, timeout: float | None) -> Watch:
        """Return the wait for a model to be ready."""
        now = time.monotonic()
        return Watch(self.named(model), now + self.budget(timeout), now)

    def budget(self, timeout: float | None) -> float:
        """Return the seconds that a call may take; the client's own where None."""
        if timeout is None:
            return self._budget
        return min(positive_seconds("timeout", timeout), MAX_SECONDS)


def _misnamed(name: object) -> str:
    """Return why a name, whatever a caller gives, cannot be a model's; empty where it can."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
        return f"a model's name has 1 to {MAX_NAME} characters, not {name!r:.50}"
    if not name.isascii() and any("\ud800" <= each <= "\udfff" for each in name):
        return f"a model's name is text that UTF-8 can write, not {name!r:.50}"
    return ""


def whole_priority(value: int) -> int:
    """Return a priority as a plain int; raise TypeError or ValueError where it cannot be one."""
    if type(value) is not int:
        try:
            value = int(operator.index(value))
        except TypeError:
            raise TypeError(f"priority must be a whole number, not {value!r}") from None
    if not -MAX_PRIORITY <= value <= MAX_PRIORITY:
        raise ValueError(f"priority must lie within ±(2**63 - 1), not {value!r:.50}")
    return value


def positive_seconds(name: str, value: float) -> float:
    """Return a time as a float; raise ValueError where it is none above 0. May be infinite."""
    if type(value) is float and 0.0 < value < math.inf:
        return value
    number: object = value  # whatever a caller without type checks gives
    if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
    return math.inf if math.isinf(value) else float(value)
