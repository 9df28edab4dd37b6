"""Values and arrays come back as they went, and what cannot go says so in words."""

from __future__ import annotations

import sys
import uuid
from collections import OrderedDict, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import NamedTuple

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays

from tests.helpers.marks import needs_numpy_2
from zstreamer import codec, extensions
from zstreamer.errors import BadRequest

scalars = (
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**64 - 1)
    | some.floats(allow_nan=False)
    | some.text()
    | some.binary()
)
values = some.recursive(
    scalars,
    lambda inner: some.lists(inner) | some.dictionaries(some.text() | some.integers(0, 9), inner),
    max_leaves=20,
)
dtypes = (
    arrays.boolean_dtypes()
    | arrays.integer_dtypes(endianness="?")
    | arrays.unsigned_integer_dtypes(endianness="?")
    | arrays.floating_dtypes(endianness="?")
    | arrays.complex_number_dtypes()
    | arrays.datetime64_dtypes()
    | arrays.timedelta64_dtypes()
    | arrays.unicode_string_dtypes(min_len=1, max_len=5)
    | arrays.byte_string_dtypes(min_len=1, max_len=5)
)


def round_trip(value):
    return codec.decode(codec.encode(value))


def assert_same(array, again):
    assert type(again) is type(array)
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()


# What comes back


@given(values)
def test_any_nested_value_comes_back_equal(value):
    assert round_trip(value) == value


@given(arrays.arrays(dtypes, arrays.array_shapes(min_dims=0, min_side=0, max_dims=4)))
def test_any_array_comes_back_equal(array):
    assert_same(array, round_trip(array))


@pytest.mark.parametrize("size", [10, 10_000, 10_000_000], ids=["10 B", "10 KB", "10 MB"])
def test_an_array_of_any_size_comes_back_equal(size):
    array = np.random.default_rng(size).random(size // 4 + 1, np.float32)
    assert_same(array, round_trip(array))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(0, np.float32),
        np.zeros((3, 0, 2)),
        np.array(3.5),
        np.ones((1, 1, 1, 7, 1)),
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(20)[::-3],
        np.arange(20).reshape(4, 5)[1:3, ::2],
        np.broadcast_to(np.arange(3), (4, 3)),
        np.arange(5, dtype=">i4"),
        np.array([1.5, np.nan, -np.inf], dtype=">f8"),
        np.array(["2024-02-29", "NaT"], dtype="M8[ns]"),
        np.array([True, False]),
        np.array(["Größe", "中文", ""]),
        np.array([b"a\0b", b""]),
    ],
    ids=lambda array: f"{array.dtype.str} {array.shape}",
)
def test_an_array_of_odd_layout_comes_back_equal(array):
    again = round_trip(array)
    assert_same(np.ascontiguousarray(array) if array.ndim else array, again)


def test_an_array_that_came_can_be_written_to_and_is_aligned():
    again = round_trip({"pad": "x", "image": np.zeros(3)})["image"]
    again[0] = 1
    assert again.flags.aligned


@pytest.mark.parametrize(
    "scalar",
    [
        np.float32(1.5),
        np.int8(-1),
        np.uint64(2**64 - 1),
        np.bool_(True),
        np.complex64(1j),
        np.float16(0.1),
        np.datetime64("2024-02-29"),
        np.timedelta64(3, "s"),
    ],
    ids=repr,
)
def test_a_numpy_scalar_comes_back_as_one(scalar):
    assert_same(scalar, round_trip(scalar))


@pytest.mark.parametrize(
    "text", ["Grüße", "Привет", "今日は", "مرحبا", "नमस्ते", "👩‍👩‍👧", "\0", "", "a" * 70_000]
)
def test_text_in_any_script_comes_back(text):
    assert round_trip([text, {text: text}]) == [text, {text: text}]


def test_a_time_with_a_zone_comes_back():
    now = datetime(2024, 2, 29, 12, 30, 15, 123456, timezone.utc)
    assert round_trip(now) == now


def test_tuples_come_back_as_lists_and_other_bytes_as_bytes():
    assert round_trip((1, (2,))) == [1, [2]]
    assert round_trip([bytearray(b"x"), memoryview(b"y")]) == [b"x", b"y"]


def test_many_items_are_encoded_one_by_one():
    items = [1, "two", np.arange(3)]
    assert codec.encode_all(items) == [codec.encode(item) for item in items]
    assert codec.encode_all([]) == []
    assert [codec.decode(each) for each in codec.encode_all([1, "two"])] == [1, "two"]


def test_a_payload_may_lie_in_any_memory():
    assert codec.decode(memoryview(b"xx" + codec.encode([1, 2]))[2:]) == [1, 2]


# What cannot go


class Unknown:
    pass


class Point(NamedTuple):
    x: int
    y: int


class Moment(datetime):
    """A class of the user's own, as pandas has one."""


STRINGS = np.dtypes.StringDType() if int(np.__version__.split(".")[0]) >= 2 else None
FIRST, LAST = datetime.min, datetime.max  # the years 1 and 9999


class Liar:
    """A key that cannot be shown."""

    def __repr__(self):
        raise RuntimeError("no words")


def test_a_key_that_cannot_be_shown_is_named_by_its_type():
    with pytest.raises(BadRequest, match=r"items\[0\]\.key\(.*test_codec\.Liar\)"):
        codec.encode({Liar(): 1})


anything = some.recursive(
    scalars
    | some.datetimes(timezones=some.just(timezone.utc) | some.just(timezone(timedelta(hours=14))))
    | some.builds(msgpack.ExtType, some.integers(0, 127), some.binary(max_size=9))
    | some.builds(msgpack.Timestamp, some.integers(-(2**62), 2**62))
    | arrays.arrays(dtypes, 2)
    | some.builds(np.ma.array, arrays.arrays(np.float32, 2)),
    lambda inner: (
        some.lists(inner)
        | some.dictionaries(scalars | some.tuples(scalars) | some.builds(Point), inner)
    ),
    max_leaves=10,
)


@given(anything)
def test_whatever_can_be_encoded_can_be_decoded_and_everything_else_is_named(value):
    refusal, payload = None, b""
    try:
        payload = codec.encode(value, "output")
    except BadRequest as error:
        refusal = str(error)
    if refusal is None:
        assert codec.encode(codec.decode(payload)) == payload
    else:
        assert refusal.startswith("output")


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 2, 29, 12, 30, 15, 123456),  # without a zone
        datetime.min,
        date(2024, 2, 29),
        Decimal("1.50"),
        Decimal("-0E-7"),
        Decimal("NaN"),
        uuid.UUID("12345678-1234-5678-1234-567812345678"),
    ],
    ids=repr,
)
def test_values_that_travel_as_text_come_back(value):
    [[again]] = round_trip([{"a": [value]}])[0].values()
    assert (type(again), repr(again)) == (type(value), repr(value))


@dataclass
class Sample:
    name: str
    inner: object = None


def test_a_dataclass_arrives_as_a_dict_of_its_fields():
    assert round_trip([Sample("a", Sample("b"))]) == [
        {"name": "a", "inner": {"name": "b", "inner": None}}
    ]


@pytest.mark.parametrize(
    "data",
    [
        ["date", "2024-02-30"],
        ["date", "20240229"],
        ["datetime", "2024-02-29T12:30:15+02:00"],
        ["datetime", "2024-02-29"],
        ["uuid", "{12345678-1234-5678-1234-567812345678}"],
        ["decimal", "one"],
        ["decimal", " 1"],
        ["decimal", 1],
        ["set", "1"],
        [["date"], "2024-02-29"],
        ["date"],
        "date",
    ],
    ids=str,
)
def test_text_that_is_no_such_value_is_refused(data):
    payload = msgpack.packb(msgpack.ExtType(extensions.TEXT, msgpack.packb(data)))
    with pytest.raises(BadRequest):
        codec.decode(payload)


@pytest.mark.parametrize("head", [["float99", [1]], ["<f4", [1]], ["float32", [2]], ["bool", [5]]])
def test_bytes_that_are_no_tensor_are_refused(head):
    data = msgpack.packb(head) + bytes(4)
    with pytest.raises(BadRequest):
        codec.decode(msgpack.packb(msgpack.ExtType(extensions.TENSOR, data)))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (Unknown(), "items[1] is tests.unit.test_codec.Unknown"),
        ({"a": [1, Unknown()]}, "items[1]['a'][1] is tests.unit.test_codec.Unknown"),
        ({Unknown(): 1}, "items[1].key("),
        ({1, 2}, "items[1] is set, which cannot be sent (convert it to a list)"),
        (2**64, "items[1] is int, which cannot be sent (an integer outside 64 bits"),
        ((0, "\ud800"), "items[1][1] is text with a lone surrogate"),
        (frozenset(), "items[1] is frozenset, which cannot be sent (convert it to a list)"),
        (time(12, 30), "items[1] is datetime.time, which cannot be sent"),
        (Sample("a", {1}), "items[1].inner is set, which cannot be sent"),
        ([Sample("a", {0.5: 1})], "items[1][0].inner has the key 0.5"),
        (np.array([Unknown()]), "items[1] is numpy.ndarray, which cannot be sent"),
        (np.zeros(2, "i4,f4"), "items[1] is numpy.ndarray, which cannot be sent"),
        ([3.0 + 1j], "items[1][0] is complex"),
        ({None: 1}, "items[1] has the key None; keys must be text or integers"),
        ({True: 1}, "items[1] has the key True; keys must be text or integers"),
        ({b"a": 1}, "items[1] has the key b'a'; keys must be text or integers"),
        ({0.5: 1}, "items[1] has the key 0.5; keys must be text or integers"),
        ([{np.int64(5): 1}], "items[1][0] has the key"),
        ({("a", 1): 2}, "items[1] has the key ('a', 1), a tuple, which cannot be sent as a key"),
        ([{"k": {Point(1, 2): 3}}], "items[1][0]['k'] has the key Point(x=1, y=2), a tuple"),
        (OrderedDict([((1,), 2)]), "items[1] has the key (1,), a tuple"),
        (defaultdict(list, {(): []}), "items[1] has the key (), a tuple"),
        pytest.param(
            {"a": np.array(["x" * 40], STRINGS)},
            "items[1]['a'] is numpy.ndarray, which cannot be",
            marks=needs_numpy_2,
        ),
        pytest.param(
            np.array(["x" * 40], STRINGS),
            "dtype StringDType(): convert it with .astype(str)",
            marks=needs_numpy_2,
        ),
        (np.ma.array([1, 2], mask=[0, 1]), "its mask would be lost: send .filled(…)"),
        ([np.ma.masked], "items[1][0] is numpy.ma"),
        (FIRST.replace(tzinfo=timezone(timedelta(hours=1))), "beyond the years 1 to 9999"),
        ([LAST.replace(tzinfo=timezone(-timedelta(hours=1)))], "items[1][0] is datetime.datetime"),
        (Moment(2024, 2, 29, tzinfo=timezone.utc), "a class of its own"),
        (msgpack.ExtType(5, b"x"), "items[1] is msgpack.ext.ExtType, which cannot be sent (an ext"),
        ({"a": msgpack.ExtType(1, b"x")}, "items[1]['a'] is msgpack.ext.ExtType"),
        (msgpack.Timestamp(2**40), "items[1] is msgpack.ext.Timestamp"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_cannot_be_sent_is_named_with_its_type_and_its_place(item, words):
    with pytest.raises(BadRequest) as caught:
        codec.encode_all(["fine", item, Unknown()])
    assert words in str(caught.value)
    assert caught.value.index == 1


def test_a_list_that_holds_itself_is_refused():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(BadRequest, match="does it contain itself"):
        codec.encode(endless)


def test_nesting_has_a_limit_at_both_ends():
    deep: object = 1
    for _ in range(1500):
        deep = [deep]
    with pytest.raises(BadRequest, match="nested deeper"):
        codec.encode(deep)
    with pytest.raises(BadRequest):
        codec.decode(b"\x91" * 5000 + b"\x01")


# What comes from a stranger


@given(some.binary(max_size=100))
def test_bytes_from_a_stranger_are_a_value_or_bad_and_nothing_else_happens(data):
    _decode(data)


@given(some.sampled_from([-1, 0, 1, 2, 3, 127]), some.binary(max_size=80))
def test_an_extension_from_a_stranger_is_a_value_or_bad_and_nothing_else_happens(kind, data):
    _decode(bytes([0xC8, 0, len(data), kind % 256]) + data)


@given(
    some.text(alphabet="<>|=iufcbSUOVMm0123456789[](),:as n", max_size=8) | values,
    some.lists(some.integers(-3, 2**40), max_size=4) | values,
    some.binary(max_size=64),
    some.sampled_from([extensions.ARRAY, extensions.SCALAR]),
)
def test_an_array_from_a_stranger_is_a_value_or_bad_and_nothing_else_happens(
    dtype, shape, data, kind
):
    head = msgpack.packb([dtype, shape])
    _decode(msgpack.packb(msgpack.ExtType(kind, head + data)))


@given(values | arrays.arrays(np.float32, 3), some.data())
def test_a_payload_with_one_byte_changed_is_a_value_or_bad_and_nothing_else_happens(value, data):
    payload = bytearray(codec.encode(value))
    position = data.draw(some.integers(0, len(payload) - 1))
    payload[position] ^= data.draw(some.integers(1, 255))
    _decode(bytes(payload))


@given(values, some.data())
def test_a_payload_cut_short_is_bad(value, data):
    payload = codec.encode(value)
    end = data.draw(some.integers(0, len(payload) - 1))
    with pytest.raises(BadRequest):
        codec.decode(payload[:end])


def _decode(data):
    with suppress(BadRequest):
        codec.decode(data)


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("|O", [1], bytes(8)),
        ("|T16", [1], bytes(16)),
        ("T", [1], bytes(16)),
        ("<i4,<f4", [1], bytes(8)),
        ([["a", "<i4"]], [1], bytes(4)),
        ("<f4", [3], bytes(8)),
        ("<f4", [2], bytes(9)),
        ("<f4", [-1], bytes(8)),
        ("<f4", [2.0], bytes(8)),
        ("<f4", 2, bytes(8)),
        ("<f4", [2**40, 2**40], bytes(8)),
        (None, [1], bytes(8)),
        ("nonsense", [1], bytes(8)),
    ],
    ids=repr,
)
def test_an_array_that_makes_no_sense_is_refused(dtype, shape, data):
    head = msgpack.packb([dtype, shape])
    with pytest.raises(BadRequest):
        codec.decode(msgpack.packb(msgpack.ExtType(extensions.ARRAY, head + data)))


def test_a_scalar_with_a_shape_is_refused():
    data = msgpack.packb(["<f4", [1]]) + bytes(4)
    with pytest.raises(BadRequest):
        codec.decode(msgpack.packb(msgpack.ExtType(extensions.SCALAR, data)))


def test_an_unknown_extension_is_refused():
    with pytest.raises(BadRequest, match="extension type 77"):
        codec.decode(msgpack.packb(msgpack.ExtType(77, b"x")))


def test_a_program_without_numpy_is_told_to_install_it(monkeypatch):
    payload = codec.encode(np.zeros(2))
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert codec.decode(codec.encode([1, "two"])) == [1, "two"]
    with pytest.raises(BadRequest, match="install numpy"):
        codec.decode(payload)
