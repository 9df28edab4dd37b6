"""Secret values that show themselves to nobody by mistake, and the pairs of keys of CURVE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import zmq
from zmq.utils import z85

KEY_LENGTH = 40
"""Characters of a key as text (Z85 of 32 bytes, ZeroMQ RFC 32)."""


class Secret:
    """A value that logs, error texts, `repr` and pickles do not get; `reveal` alone gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not to be pickled")


@dataclass(frozen=True, slots=True)
class Pair:
    """A public key, as text of Z85, and the secret key that belongs to it."""

    public: bytes
    secret: Secret

    @classmethod
    def new(cls) -> Pair:
        """Make one."""
        public, secret = zmq.curve_keypair()
        return cls(public, Secret(secret))

    @property
    def matches(self) -> bool:
        """Whether the two belong together."""
        try:
            return bool(zmq.curve_public(self.secret.reveal()) == self.public)
        except (ValueError, zmq.ZMQError):
            return False


@dataclass(frozen=True, slots=True)
class Curve:
    """What one connection needs: who connects, and the key that the broker must prove to have."""

    pair: Pair
    server: bytes


def is_key(text: bytes) -> bool:
    """Whether this is a key as text."""
    if len(text) != KEY_LENGTH:
        return False
    try:
        return len(raw(text)) == KEY_LENGTH * 4 // 5
    except (ValueError, KeyError, OverflowError, ArithmeticError):
        return False


def raw(text: bytes) -> bytes:
    """Return the 32 bytes of a key."""
    try:
        return bytes(z85.decode(text))
    except Exception as error:  # struct.error and others, as the text has it
        raise ValueError("not a key of 40 characters") from error
