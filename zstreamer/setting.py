"""A setting: one typed value that a flag, an environment variable, a file or a default may give.

`Format` knows how the value of one type is read and shown; `Setting` is what a field of a
configuration carries besides its default: the kind, the help text, the flag and the variable. The
kinds themselves follow: sizes, seconds, names, JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting has no usable value; the text names its source, the value and the fix."""


def shown(value: object, most: int = 50) -> str:
    """Return a value as a message quotes it, also where Python itself cannot show it.

    Args:
        value: from a file, an operator or a program.
        most: characters beyond which it is cut.
    """
    try:
        return repr(value)[:most]
    except (ValueError, RecursionError):  # an integer of thousands of digits; too many brackets
        return f"a value of type {type(value).__name__} that is too long to show"


@dataclass(frozen=True, slots=True)
class Format(Generic[T]):
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
    kind: Format[Any]
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


def setting(default: object, kind: Format[Any], sentence: str, *, positional: bool = False) -> Any:
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


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("give some text")


TOO_LONG = 10**18
"""Whole numbers from here on count nothing, and those of thousands of digits JSON cannot write."""


def _count(least: int, most: float = math.inf) -> Callable[[object], int]:
    top = f"of at least {least:,}" if most == math.inf else f"from {least:,} to {most:,}"

    def parse(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[0-9_]{1,18}\s*", value):
            value = int(value.replace("_", ""))
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            if value < TOO_LONG:
                return value
            raise ValueError("give a whole number of at most 18 digits")
        raise ValueError(f"give a whole number {top}")

    return parse


_SIZES = {"B": 1} | {
    prefix + unit: base ** (power + 1)
    for base, unit, prefixes in ((1000, "B", "kMGT"), (1024, "iB", "KMGT"))
    for power, prefix in enumerate(prefixes)
}


def _bytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < TOO_LONG:
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value))
    scale = {name.lower(): size for name, size in _SIZES.items()}
    if found and (found[2] or "b").lower() in scale:
        size = float(found[1]) * scale[(found[2] or "b").lower()]
        if size >= 1 and size.is_integer():
            return int(size)
    raise ValueError("give a size in bytes, such as 1048576, 64MiB or 2GiB")


def _show_bytes(value: int) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value % _SIZES[unit] == 0:
            return f"{value // _SIZES[unit]}{unit}"
    return str(value)


_DURATIONS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "": 1.0}


def _seconds(value: object) -> float:
    return _number(value, _DURATIONS, "give a time in seconds, such as 0.5, 500ms or 2min")


def _number(value: object, units: dict[str, float], expected: str) -> float:
    found = re.fullmatch(r"\s*([\d.eE+-]+)\s*([a-z]*)\s*", str(value))
    try:
        number = float(found[1]) * units[found[2]] if found else math.nan
    except (ValueError, KeyError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise ValueError(expected)
    return number


def _show_number(value: float) -> str:
    return f"{value:.15g}"


def _switch(value: object) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True}
    known |= {"0": False, "false": False, "no": False, "off": False}
    answer = known.get(str(value).strip().lower())
    if answer is None:
        raise ValueError("give 1 or 0 (true, false, yes, no, on and off work too)")
    return answer


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, (list, tuple)) and all(type(part) in (str, int) for part in value):
        return tuple(str(part) for part in value)
    raise ValueError("give names separated by commas")


def _devices(value: object) -> tuple[str, ...]:
    names = _names(value)
    one = r"(\d+|(GPU|MIG)-[\w./-]+)"
    if all(re.fullmatch(rf"{one}(,{one})*", name) for name in names):
        return names
    raise ValueError("give the numbers of CUDA devices, such as 0,1, or their ids (GPU-…, MIG-…)")


def _json(value: object, expected: str) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{expected} ({error})") from None
    except RecursionError:
        raise ValueError(f"{expected} (too many brackets within brackets)") from None


def _list(value: object) -> tuple[object, ...]:
    expected = """give a JSON list, such as '["bert-base-uncased", 2]'"""
    found = _json(value, expected)
    if isinstance(found, (list, tuple)):
        return tuple(found)
    raise ValueError(expected)


def _object(value: object) -> dict[str, object]:
    expected = """give a JSON object, such as '{"precision": "float32"}'"""
    found = _json(value, expected)
    if isinstance(found, dict) and all(isinstance(key, str) for key in found):
        return dict(found)
    raise ValueError(expected)


def _target(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"([\w.]+:[\w.]+)?|hf:.+", value):
        return value
    raise ValueError(
        "give module:Class or module:function, such as bert_model:ManagedBertModel, or hf: and a "
        "model of the Hugging Face hub or a folder"
    )


VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""A version of a model; it has no ``@``, so that MODEL@VERSION can be read in one way only."""

VERSION_WORDS = "up to 64 letters, digits and . _ + -, of which the first is a letter or a digit"


def version_order(version: str) -> tuple[int, str]:
    """Return what versions are sorted by, the oldest first: numbers as such, behind all else."""
    return (int(version) if version.isdecimal() and len(version) < 20 else -1, version)


def _version(value: object) -> str:
    text = str(value) if type(value) in (int, str) else ""
    if VERSION.fullmatch(text):
        return text
    raise ValueError(f"give {VERSION_WORDS}")


def choice(*names: str) -> Format[str]:
    """One word out of a few."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value.lower() in names:
            return value.lower()
        raise ValueError("give one of " + ", ".join(names))

    return Format("|".join(names), parse)


def optional(kind: Format[T], none: str) -> Format[T | None]:
    """The same kind, or nothing at all; `none` is the word for nothing."""

    def parse(value: object) -> T | None:
        return None if value is None or value == none else kind.parse(value)

    def show(value: T | None) -> str:
        return none if value is None else kind.show(value)

    return Format(kind.name, parse, show)


TEXT = Format("TEXT", _text)
TARGET = Format("MODULE:NAME|hf:MODEL", _target)
VERSION_NAME = Format("VERSION", _version)
COUNT = Format("N", _count(1))
INDEX = Format("N", _count(0))
WINDOW = Format("N", _count(1, 50_000))  # as many as one HELLO may name: `messages.MAX_OPEN`
ANY_TEXT = Format("TEXT", str)
PORT = Format("PORT", _count(1, 65535))
PORT_OR_NONE = Format("PORT", _count(0, 65535))
BYTES = Format("SIZE", _bytes, _show_bytes)
SECONDS = Format("SECONDS", _seconds, _show_number)
AMOUNT = Format(
    "NUMBER", lambda value: _number(value, {"": 1.0}, "give a number of at least 0"), _show_number
)
SWITCH = Format("", _switch, lambda value: "on" if value else "off")
NAMES = Format("A,B,…", _names, ",".join)
DEVICES = Format("A,B,…", _devices, ",".join)
JSON_LIST = Format("JSON", _list, lambda value: json.dumps(list(value)))
JSON_OBJECT = Format("JSON", _object, json.dumps)
