"""A setting: one typed value that a flag, an environment variable, a file or a default may give.

`Kind` knows how the value of one type is read and shown; `Setting` is what a field of a
configuration carries besides its default: the kind, the help text, the flag and the variable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting has no usable value; the text names its source, the value and the mend."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How the values of one type are read from text, a TOML file, JSON or Python.

    name: what the help shows in place of a value.
    parse: turns what a source gave into the value; raises ValueError that says what is expected.
    show: turns a value into the text that `parse` reads back.
    """

    name: str
    parse: Callable[[object], T]
    show: Callable[[T], str] = str


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one setting besides its default.

    help: one sentence, with the unit.
    positional: whether the command line takes it as an argument, not as a flag.
    """

    name: str
    kind: Kind[Any]
    help: str
    default: object
    positional: bool = False

    @property
    def flag(self) -> str:
        """`--worker-port`, or `TARGET` where it is an argument by position."""
        return self.name.upper() if self.positional else "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """`ZSTREAMER_WORKER_PORT`."""
        return "ZSTREAMER_" + self.name.upper()

    @property
    def shown_default(self) -> str:
        """The default as a person would type it."""
        return self.kind.show(self.default)


def setting(default: object, kind: Kind[Any], sentence: str, *, positional: bool = False) -> Any:
    """A dataclass field that carries a `Setting`; a dictionary is copied for each use.

    sentence: what the setting is, with its unit, for the help.
    """
    metadata = {"kind": kind, "help": sentence, "positional": positional}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def settings(program: type[object]) -> tuple[Setting, ...]:
    """The settings of a configuration class, in the order of its fields."""
    return tuple(_of(each) for each in fields(cast("Any", program)))


def _of(each: Field[Any]) -> Setting:
    factory = each.default_factory
    default = each.default if factory is MISSING else factory()
    return Setting(each.name, default=default, **each.metadata)
