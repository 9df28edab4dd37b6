"""What all configurations share: their values are checked, and JSON carries them."""

from __future__ import annotations

import json
from typing import ClassVar, TypeVar

from zstreamer.setting import ConfigError, settings, shown


class Config:
    """What all programs' configurations share: every value is checked when one is made.

    Raises ConfigError for a value that its setting does not take.
    """

    __slots__ = ()
    program: ClassVar[str]

    def __post_init__(self) -> None:
        for each in settings(type(self)):
            value = getattr(self, each.name)
            try:
                object.__setattr__(self, each.name, each.kind.parse(value))
            except ValueError as error:
                where = f"{type(self).__name__}.{each.name}"
                raise ConfigError(f"{where} is {shown(value, 1000)}: {error}") from None
        self._check()

    def _check(self) -> None:
        """Refuse values that do not go together."""


C = TypeVar("C", bound=Config)


BRIEFEST, LONGEST = 0.001, 6553.0
"""Seconds of a heartbeat at the least, and of silence at the most, that ZeroMQ knows."""


def check_heartbeat(heartbeat: float, timeout: float) -> None:
    """Raise ConfigError where a peer would count as lost between two heartbeats; seconds."""
    if not BRIEFEST <= heartbeat <= timeout - BRIEFEST < LONGEST:
        raise ConfigError(
            f"heartbeat is {heartbeat:g} s and heartbeat_timeout {timeout:g} s: the timeout must "
            f"be the longer, best four times; {BRIEFEST:g} s to {LONGEST:,.0f} s are possible"
        )


def to_json(config: Config) -> str:
    """A configuration as one line of JSON that `from_json` turns into an equal one.

    Raises ConfigError for arguments of the model that JSON cannot carry.
    """
    values = {each.name: getattr(config, each.name) for each in settings(type(config))}
    try:
        text = json.dumps(values)
        if from_json(type(config), text) == config:
            return text
        reason = "JSON would change them"
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error)
    raise ConfigError(
        f"init_args and init_kwargs must be plain JSON values ({reason}): use lists, "
        "dictionaries with text keys, text, numbers, true, false and null"
    )


def from_json(program: type[C], text: str) -> C:
    """The configuration that `to_json` wrote. Raises ConfigError where a value is unusable."""
    return program(**json.loads(text))
