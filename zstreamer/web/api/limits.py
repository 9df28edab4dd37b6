"""What one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from zstreamer import config
from zstreamer.wire.protocol import MAX_BUDGET


@dataclass(frozen=True)
class Limits:
    """Bounds of one HTTP request; what lies beyond them is refused, with the bound named.

    Args:
        max_body: bytes, both as they come and once decompressed. A server stops reading there
            and answers with ``Interface.refuse(413)``.
        max_items: items of one request.
        max_nesting: lists and objects inside each other in a body.
        timeout: seconds that a call may take where the request does not say.
        max_timeout: seconds; a longer ``X-Request-Timeout`` is cut to this.
        max_priority: ``X-Priority`` lies between minus this and this.

    Raises:
        ValueError: a bound makes no sense; the message says which and the mend.
    """

    max_body: int = config.MAX_BODY
    max_items: int = config.MAX_REQUEST_ITEMS
    max_nesting: int = 100
    timeout: float = config.TIMEOUT
    max_timeout: float = config.MAX_TIMEOUT
    max_priority: int = 100

    def __post_init__(self) -> None:
        for name, least, most in _BOUNDS:
            value = getattr(self, name)
            if isinstance(value, bool) or not least <= value <= most:
                raise ValueError(f"{name} must lie between {least:g} and {most:g}, not {value!r}")
        if self.timeout > self.max_timeout:
            raise ValueError(
                f"timeout={self.timeout:g} is longer than max_timeout={self.max_timeout:g} seconds"
            )


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("max_body", 1, 2**40),
    ("max_items", 1, 2**31),
    ("max_nesting", 1, 200),  # what a payload may hold; JSON is written to 254 levels
    ("timeout", 0.001, MAX_BUDGET / 1000),
    ("max_timeout", 0.001, MAX_BUDGET / 1000),
    ("max_priority", 0, 2**31),
)

DEFAULT = Limits()
