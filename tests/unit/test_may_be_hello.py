"""A HELLO is known for one by its first bytes, however it is packed: it is asked for its key."""

from __future__ import annotations

import struct

import pytest

from zstreamer.wire import protocol
from zstreamer.wire.heads import may_be_hello
from zstreamer.wire.protocol import Hello, Role

FIELDS = (1, "ZSP", protocol.VERSION, int(Role.WORKER), 7, {})


def packed(length: int, header: bytes) -> bytes:
    import msgpack

    fields = [*FIELDS, *[0] * (length - len(FIELDS))]
    return header + b"".join(map(msgpack.packb, fields))


HEADERS = {
    "fixarray": lambda n: bytes([0x90 | n]),
    "array 16": lambda n: b"\xdc" + struct.pack(">H", n),
    "array 32": lambda n: b"\xdd" + struct.pack(">I", n),
}


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        ("fixarray", 6),
        ("fixarray", 15),
        ("array 16", 6),
        *(("array 16", kind << 8 | 5) for kind in protocol.Kind),
        ("array 32", 6),
    ],
)
def test_a_hello_is_asked_for_its_key_however_it_is_packed(kind, length):
    head = packed(length, HEADERS[kind](length))
    assert isinstance(protocol.decode([head]), Hello)
    assert may_be_hello(head[:2])


def test_what_is_sent_all_the_time_is_not_asked():
    for message in (protocol.Ping(), protocol.Ack(3), protocol.State(1, "")):
        head = b"".join(map(memoryview, protocol.plain(message)))
        assert not may_be_hello(head[:2])
