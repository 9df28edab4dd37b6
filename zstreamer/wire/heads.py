"""The head of a message, from bytes to plain values, with bounds that hold before objects are made.

    size      by kind: a few hundred KiB for lists, 2 MiB where small payloads lie inside
    form      skipped through first, so that no long array is made that the bytes do not fill
    objects   arrays and maps are counted while they are made; beyond the bound it stops

Without them a head of some MiB costs its receiver seconds and gigabytes: an empty array is one byte
on the wire and 56 in memory, and an array's length is believed before its elements are seen.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import msgpack

from zstreamer.wire.messages import MAX_FRAME, Kind, ProtocolError

PLAIN = 1024
"""Bytes up to which a head is read without more ado: it cannot cost more than some 0.1 ms."""

FORMED = 16 * 1024
"""Bytes up to which its form is all that is looked at: an object a byte is a MiB, for a moment."""

SHORT = 256
"""Elements of an array that is made before its bytes are seen: an unpacker has up to 1,024 at once,
which then take 2 MiB, for a moment."""

MAX_ARRAY = 64 * 1024
MAX_MAP = 4096
"""Elements of one array, and of one map."""


class Bounds(NamedTuple):
    """What the head of one kind of message may cost.

    Args:
        size: bytes.
        objects: arrays and maps in it.
    """

    size: int
    objects: int


_unpackb = msgpack.unpackb

BUNDLE = Bounds(MAX_FRAME, 50_000)
LIST = Bounds(512 * 1024, 4096)
WORDS = Bounds(256 * 1024, 64)

BOUNDS: dict[object, Bounds] = {
    Kind.SUBMIT: BUNDLE,
    Kind.ANSWER: BUNDLE,
    Kind.WORK: BUNDLE,
    Kind.REPORT: BUNDLE,
    Kind.STATUS: BUNDLE,
    Kind.HELLO: LIST,
    Kind.WELCOME: LIST,
    Kind.CANCEL: LIST,
}


_NO_HELLO = frozenset(
    bytes([0x90 | elements, kind])
    for elements in range(16)
    for kind in Kind
    if kind is not Kind.HELLO
)
"""How every message begins that is no HELLO: an array of up to 15 elements (msgpack's fixarray),
and its kind. Of a longer array the second byte says nothing, so it may be a HELLO with fields
that nobody reads."""


def may_be_hello(head: bytes) -> bool:
    """Whether a message whose head begins with these two bytes may be a HELLO."""
    return head not in _NO_HELLO


def unpack(head: bytes) -> list[object]:
    """Return the fields of a head; the first is an integer, its kind.

    Raises:
        ProtocolError: it is no head, or costs more than one of its kind may.
    """
    try:
        fields = _unpackb(head, strict_map_key=False) if len(head) <= PLAIN else _large(head)
    except ProtocolError:
        raise
    except Exception as cause:  # whatever the bytes provoke, they are no message
        # Its text may repeat what was sent.
        raise ProtocolError(f"malformed head: {type(cause).__name__}") from cause
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise ProtocolError("the head is not a message")
    return fields


def _large(head: bytes) -> list[object]:
    fields: list[object]
    if len(head) <= FORMED:
        try:
            fields = _unpackb(head, strict_map_key=False, max_array_len=SHORT)
        except ValueError:  # a longer array, or no head at all
            _local.skip(head)
            fields = _unpackb(head, strict_map_key=False)
        return fields
    bounds = BOUNDS.get(_kind(head), WORDS)
    if len(head) > bounds.size:
        raise ProtocolError(f"a head of {len(head)} bytes; {bounds.size} are allowed")
    _local.skip(head)
    count = _Count(bounds.objects)
    fields = msgpack.unpackb(
        head,
        strict_map_key=False,
        list_hook=count,
        object_hook=count,
        max_array_len=MAX_ARRAY,
        max_map_len=MAX_MAP,
    )
    return fields


def _kind(head: bytes) -> object:
    if head[0] & 0xF0 == 0x90 and head[1] < 0x80:  # a short array that begins with a small integer
        return head[1]
    first = msgpack.Unpacker()
    first.feed(head[:16])
    first.read_array_header()
    return first.unpack()


class _Count:
    """Lets arrays and maps pass until there are too many."""

    __slots__ = ("left",)

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self, made: object) -> object:
        self.left -= 1
        if self.left < 0:
            raise ProtocolError("a head of too many arrays and maps")
        return made


class _Local(threading.local):
    """A reader a thread, which makes nothing of what it reads."""

    def __init__(self) -> None:
        self._reader = msgpack.Unpacker()

    def skip(self, head: bytes) -> None:
        """Read through one value; raises where the bytes do not hold exactly one."""
        reader = self._reader
        start = reader.tell()
        try:
            reader.feed(head)
            reader.skip()
            if reader.tell() - start != len(head):
                raise ProtocolError("bytes after the end of the head")
        except BaseException:
            self._reader = msgpack.Unpacker()  # what is left in this one belongs to nobody
            raise


_local = _Local()
