"""Messages and their bytes: the document, the vectors and the code say the same."""

from __future__ import annotations

import json
import time
import tracemalloc
from itertools import pairwise

import msgpack
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as some

from tests.helpers import vectors
from tests.helpers.annotated import wrong_fields
from tests.helpers.wire import received
from zstreamer import codec
from zstreamer.errors import BadRequest
from zstreamer.wire import protocol
from zstreamer.wire.protocol import BUNDLE, INLINE, MAX_ROWS, Kind, ProtocolError, Run
from zstreamer.wire.transfer import Receiver

VECTORS = vectors.load()
MESSAGES = VECTORS["messages"]
PAYLOADS = VECTORS["payloads"]
REFUSED = VECTORS["refused"]

uints = some.integers(0, 2**64 - 1)
names = some.text(max_size=20)
plain = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**63), 2**64 - 1) | names | some.binary(),
    lambda inner: some.lists(inner) | some.dictionaries(names, inner),
    max_leaves=8,
)
maps = some.dictionaries(names, plain, max_size=4)
words = some.none() | some.booleans() | uints | names
details = some.dictionaries(names, words | some.lists(words, max_size=3), max_size=4)
failures = some.tuples(uints, names, details).map(list)


@some.composite
def columns(draw, count, kinds="bfte"):
    """As many slots as there are items, and the frames that the empty ones name."""
    kinds = draw(some.lists(some.sampled_from(kinds), min_size=count, max_size=count))
    of = {"b": some.binary(), "f": some.binary(), "t": uints, "e": failures}
    slots = [draw(of[kind]) for kind in kinds]
    frames = [slot for kind, slot in zip(kinds, slots, strict=True) if kind == "f"]
    sent = [None if kind == "f" else slot for kind, slot in zip(kinds, slots, strict=True)]
    return slots, sent, frames


@some.composite
def bundles(draw):
    """A message with items in it: as it is decoded, and its frames."""
    kind = draw(some.sampled_from(["SUBMIT", "ANSWER", "WORK", "REPORT"]))
    ids = draw(some.lists(uints, max_size=6))
    budgets = draw(some.lists(uints, min_size=len(ids), max_size=len(ids)))
    # An input is never an error.
    slots, sent, frames = draw(columns(len(ids), "bft" if kind == "SUBMIT" else "bfte"))
    number = draw(uints)
    if kind == "ANSWER":
        return protocol.Answer(ids, slots), protocol.answer(ids, sent, frames)
    if kind == "WORK":
        work = protocol.Work(number, ids, budgets, slots)
        return work, protocol.work(number, ids, budgets, sent, frames)
    if kind == "REPORT":
        report = protocol.Report(draw(some.lists(uints)), ids, slots, number, 5, 6)
        return report, protocol.report(report._replace(slots=sent), frames)
    run = Run(draw(names), number, draw(uints), draw(uints), ids, budgets, slots)
    empty = Run("m", 0, 0, 0, [], [], [])
    frames = protocol.submit(number, [run._replace(slots=sent), empty], frames)
    return protocol.Submit(number, [run, empty]), frames


# As the document says


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["what"])
def test_the_bytes_of_a_vector_are_its_message(vector):
    frames = [bytes.fromhex(frame) for frame in vector["frames"]]
    assert protocol.decode(frames) == vectors.message(vector["message"])


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["what"])
def test_the_message_of_a_vector_is_its_bytes(vector):
    frames = received(vectors.encode(vector["message"]))
    assert [bytes(memoryview(f)).hex() for f in frames] == vector["frames"]  # type: ignore[arg-type]


@pytest.mark.parametrize("vector", PAYLOADS, ids=lambda vector: vector["what"])
def test_the_payload_of_a_vector_is_its_value(vector):
    value = vectors.value(vector["value"])
    assert codec.encode(value).hex() == vector["payload"]
    again = codec.decode(bytes.fromhex(vector["payload"]))
    assert codec.encode(again).hex() == vector["payload"]
    assert type(again) is type(value)


@pytest.mark.parametrize("vector", REFUSED["messages"], ids=lambda vector: vector["what"])
def test_a_message_that_must_be_refused_is(vector):
    with pytest.raises(ProtocolError):
        protocol.decode([bytes.fromhex(frame) for frame in vector["frames"]])


@pytest.mark.parametrize("vector", REFUSED["payloads"], ids=lambda vector: vector["what"])
def test_a_payload_that_must_be_refused_is(vector):
    with pytest.raises(BadRequest):
        codec.decode(bytes.fromhex(vector["payload"]))


def test_the_vectors_hold_no_integer_that_a_reader_of_json_may_round():
    def integers(form):
        if isinstance(form, list | dict):
            inner = form.values() if isinstance(form, dict) else form
            return [found for each in inner for found in integers(each)]
        return [form] if isinstance(form, int) else []

    assert max(map(abs, integers(VECTORS))) <= 2**53


def test_there_is_a_vector_for_every_kind_of_message():
    assert {vector["message"]["kind"] for vector in MESSAGES} == {kind.name for kind in Kind}
    assert VECTORS["version"] == protocol.VERSION


@pytest.mark.parametrize("mark", ["errors", "messages", "payloads", "refused"])
def test_the_document_shows_what_the_data_and_the_code_hold(mark):
    assert vectors.shown(mark) == vectors.tables()[mark], "run: python -m tests.helpers.vectors"


@pytest.mark.parametrize("kind", Kind)
def test_the_document_has_every_kind_of_message_under_its_number(kind):
    assert f"| {kind.value} | {kind.name} |" in vectors.PAGE.read_text()


# Round trips


@given(bundles())
def test_items_come_out_as_they_went_in(bundle):
    message, frames = bundle
    assert protocol.decode(frames) == message


def test_an_error_is_no_input():
    frames = protocol.submit(0, [Run("m", 0, 0, 0, [1], [1], [[400, "no", {}]])], [])
    with pytest.raises(protocol.ProtocolError):
        protocol.decode(frames)


@pytest.mark.parametrize("size", [0, 10, protocol.INLINE, protocol.INLINE + 1, protocol.PART])
def test_a_payload_goes_on_whatever_the_way_it_came(size):
    """In a frame of its own although it is small, as a received frame, in parts of one."""
    payload = bytes(size)
    run = Run("m", 0, 0, 0, [1], [1], [None])
    decoded = protocol.decode(protocol.submit(0, [run], [zmq.Frame(payload)]))
    receiver = Receiver(2**26)
    for start in range(0, size, 7 + size // 3):
        receiver.part(1, zmq.Frame(payload[start : start + 7 + size // 3]))
    came = [decoded.runs[0].slots[0], receiver.payload(1) if size else b""]
    for slot in came:
        slots, frames = protocol.lay_out([slot])
        assert protocol.answer([1], slots, frames)
        assert bytes(memoryview(frames[0] if frames else slots[0])) == payload


@given(uints, maps, some.sampled_from([1, 2, 3]))
def test_a_hello_comes_out_as_it_went_in(id, info, role):
    hello = protocol.Hello(role, id, info)
    assert protocol.decode(protocol.hello(hello)) == hello


@given(uints, some.binary())
def test_a_part_comes_out_as_it_went_in(transfer, data):
    assert protocol.decode(protocol.part(transfer, data)) == protocol.Part(transfer, data)


@given(
    some.one_of(
        some.builds(
            protocol.Welcome,
            *(uints, some.booleans(), some.lists(uints), uints, uints, uints),
            some.just(()) | some.lists(names, min_size=1),
        ),
        some.builds(protocol.Refuse, failures),
        some.builds(protocol.Cancel, some.lists(uints)),
        some.builds(protocol.Ack, uints),
        some.builds(protocol.PartOk, uints),
        some.builds(protocol.Notice, names, failures | some.just([])),
        some.builds(protocol.Ping),
        some.builds(protocol.State, uints, names),
        some.builds(protocol.Status, maps),
    )
)
def test_a_message_without_payload_comes_out_as_it_went_in(message):
    assert protocol.decode(protocol.plain(message)) == message


def test_a_hello_of_another_version_is_read_whatever_else_it_holds():
    for rest in ([], [1], [{"role": "x"}, None, 5, 6, 7]):
        head = msgpack.packb([1, "ZSP", 2, *rest])
        message = protocol.decode([head])
        assert isinstance(message, protocol.Hello)
        assert message.version in (2, 0)
    assert protocol.decode([msgpack.packb([1, "ZSP", 2, 1, 1, {}])]).version == 2  # type: ignore[union-attr]


# What is no message


@given(some.lists(some.binary(max_size=60), max_size=3))
def test_bytes_that_are_no_message_are_refused_and_nothing_else_happens(frames):
    _decode(frames)


@given(some.integers(-2, 20) | some.none() | names, some.lists(plain, max_size=8))
def test_a_head_of_the_wrong_fields_is_refused_and_nothing_else_happens(kind, fields):
    _decode([msgpack.packb([kind, *fields])])


@given(bundles(), some.data())
def test_a_message_with_one_byte_changed_is_refused_or_is_another_message(bundle, data):
    _, frames = bundle
    head = bytearray(frames[0])
    position = data.draw(some.integers(0, len(head) - 1))
    head[position] ^= data.draw(some.integers(1, 255))
    _decode([bytes(head), *frames[1:]])


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["what"])
def test_a_field_of_another_type_is_refused_or_left_out(vector):
    head, *frames = [bytes.fromhex(frame) for frame in vector["frames"]]
    for changed in _with_one_value_changed(msgpack.unpackb(head, strict_map_key=False)):
        _decode([msgpack.packb(changed), *frames])


@given(bundles(), some.data())
def test_a_message_cut_short_is_refused(bundle, data):
    _, frames = bundle
    end = data.draw(some.integers(0, len(frames[0]) - 1))
    with pytest.raises(ProtocolError):
        protocol.decode([frames[0][:end], *frames[1:]])


@given(bundles())
def test_frames_too_many_or_too_few_are_refused(bundle):
    _, frames = bundle
    with pytest.raises(ProtocolError):
        protocol.decode([*frames, b""])
    if len(frames) > 1:
        with pytest.raises(ProtocolError):
            protocol.decode(frames[:-1])


def _decode(frames):
    try:
        message = protocol.decode(frames)
    except ProtocolError:
        return
    assert isinstance(message, tuple(vectors.CLASSES.values()))
    assert not wrong_fields(message), message


def _with_one_value_changed(value):
    """Yield it with another type in one place, at each depth."""
    if isinstance(value, list):
        for place, inner in enumerate(value):
            for other in _with_one_value_changed(inner):
                yield [*value[:place], other, *value[place + 1 :]]
    for other in (None, True, -1, 2**64 - 1, 0.5, "x", b"x", [], [None], [[]], {}, {"x": 1}):
        if type(other) is not type(value) or isinstance(value, int | list):
            yield other


MALFORMED = {
    "no frames": [],
    "an empty head": [b""],
    "an empty array": [[]],
    "a map": [{6: 1}],
    "bytes that would read as fields": [b"\x06\x01"],
    "an unknown kind": [[99]],
    "a kind that is no integer": [[1.0, "ZSP", 1, 1, 1, {}]],
    "a kind that is a truth value": [[True, "ZSP", 1, 1, 1, {}]],
    "another protocol": [[1, "HTTP", 1, 1, 1, {}]],
    "a HELLO without info": [[1, "ZSP", 1, 1, 1]],
    "a HELLO whose id is text": [[1, "ZSP", 1, 1, "me", {}]],
    "an ACK of text": [[6, "one"]],
    "an ACK of a truth value": [[6, True]],
    "a CANCEL of text": [[5, ["one"]]],
    "a CANCEL that is no array": [[5, 1]],
    "ids in bytes": [[7, b"\x01", [b""]]],
    "ids in a map": [[7, {1: 1}, [b""]]],
    "columns of different lengths": [[7, [1, 2], [b""]]],
    "budgets of different length": [[12, 0, [1], [1, 2], [b""]]],
    "a budget that is no integer": [[12, 0, [1], [1.5], [b""]]],
    "a slot of text": [[7, [1], ["text"]]],
    "a slot that is a truth value": [[7, [1], [False]]],
    "an error without details": [[7, [1], [[500, "words"]]]],
    "an error whose code is text": [[7, [1], [["500", "words", {}]]]],
    "a run with a field too many": [[4, 0, [["m", 0, 0, 0, [], [], [], 0]]]],
    "a run whose model is a number": [[4, 0, [[5, 0, 0, 0, [], [], []]]]],
    "a run whose priority is a real number": [[4, 0, [["m", 0.5, 0, 0, [], [], []]]]],
    "begun in text": [[13, ["one"], [], [], 0, 0, 0]],
    "a backlog of nothing": [[13, [], [], [], None, 0, 0]],
    "a field too many": [[6, 1, 1]],
    "a PART without its frame": [[8, 1]],
    "a PING with a frame": [[11], b""],
    "an error that is no array": [[3, "error"]],
}


@pytest.mark.parametrize("frames", MALFORMED.values(), ids=MALFORMED)
def test_it_is_refused(frames):
    head = frames[:1] if frames[:1] == [b""] else [msgpack.packb(f) for f in frames[:1]]
    with pytest.raises(ProtocolError):
        protocol.decode([*head, *frames[1:]])


def test_a_head_with_bytes_after_its_end_is_refused():
    with pytest.raises(ProtocolError):
        protocol.decode([*protocol.plain(protocol.Ping()), b"\x00"])
    with pytest.raises(ProtocolError):
        protocol.decode([msgpack.packb([Kind.PING]) + b"\x00"])


# Bounds


def nested(depth, inner=None):
    for _ in range(depth):
        inner = [inner]
    return inner


COSTLY = {
    "an array of empty arrays": b"\x92\x01" + b"\xdd\x00\x07\x00\x00" + 0x70000 * b"\x90",
    "an array of empty arrays in a bundle": b"\x92\x07\xdd\x00\x0f\x00\x00" + 0xF0000 * b"\x90",
    "maps in a bundle": b"\x92\x07\xdd\x00\x0f\x00\x00" + 0xF0000 * b"\x80",
    "arrays that claim more than there is": 1000 * b"\xdc\xff\xff" + bytes(70_000),
    "long arrays inside one another in 16 KB": b"\x92\x07" + 3000 * b"\xdd\x00\x00\x3a\x98",
    "short arrays inside one another in 16 KB": b"\x92\x07" + 5000 * b"\xdc\x01\x00",
    "a HELLO with much to say": msgpack.packb([1, "ZSP", 1, 1, 1, {"a": bytes(600_000)}]),
    "a HELLO of many ids": msgpack.packb([1, "ZSP", 1, 1, 1, {"open": [2**62] * 100_000}]),
    "a STATE of much text": msgpack.packb([14, 3, "x" * 300_000]),
    "a bundle of more than a frame": msgpack.packb([7, [1], [bytes(2 * 2**20)]]),
    "a map of many keys": msgpack.packb([1, "ZSP", 1, 1, 1, dict.fromkeys(range(10_000))]),
    "nothing but depth": 5000 * b"\x91" + b"\xc0",
}


@pytest.mark.parametrize("head", COSTLY.values(), ids=COSTLY)
def test_a_costly_head_is_refused_before_it_costs(head):
    begin = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as refused:
            protocol.decode([head])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - begin < 0.5
    assert peak < 24 * 2**20
    assert len(str(refused.value)) < 200


def test_a_head_may_be_written_in_another_form_whatever_its_size():
    """A longer integer, a longer array: the same message."""
    head = msgpack.packb([7, [1], [bytes(10_000)]])
    assert head[:2] == b"\x93\x07"
    assert protocol.decode([b"\xdc\x00\x03\xcd\x00\x07" + head[2:]]) == protocol.decode([head])


@pytest.mark.parametrize("count", [255, 256, 257, 4000])
def test_a_head_of_a_few_kib_may_hold_long_arrays(count):
    answer = protocol.Answer(list(range(count)), [b"x"] * count)
    assert protocol.decode(protocol.answer(*answer, [])) == answer


def test_what_follows_a_bad_head_is_read_as_if_it_had_not_been():
    good = msgpack.packb([7, [1], [bytes(5000)]])
    for bad in (good + b"\xc0", good[:-1], b"\xc1" * 2000, good[:3000]):
        with pytest.raises(ProtocolError):
            protocol.decode([bad])
        assert protocol.decode([good]) == protocol.Answer([1], [bytes(5000)])


@given(
    some.lists(some.one_of(plain, some.just(nested(700)), some.just("x" * 100_000)), min_size=3),
    some.integers(0, 2**64 - 1),
)
def test_an_error_that_is_passed_on_is_flat_and_short_whatever_it_was(parts, code):
    error = [code, parts[0], {"a": parts[1], "b": parts[2], "c": "y" * 100_000}]
    [slot] = protocol.decode(protocol.report(protocol.Report([], [1], [error], 0, 0, 0), [])).slots
    packed = protocol.answer([1], [slot], [])
    assert len(packed[0]) < 300_000
    assert protocol.size(slot) < 200_000
    json.dumps(slot, allow_nan=False)


def test_a_malformed_message_is_not_repeated_in_the_words_that_refuse_it():
    for head in ([b"secret"], [1, "secret"], [13, "secret"], ["secret"], {"secret": 1}):
        with pytest.raises(ProtocolError) as refused:
            protocol.decode([msgpack.packb(head) + b"secret"])
        assert "secret" not in str(refused.value)


# Bundles


def test_small_payloads_lie_in_the_head_and_larger_ones_in_frames_of_their_own():
    small, large = bytes(INLINE), bytes(INLINE + 1)
    error: protocol.Slot = [500, "words", {}]
    slots, frames = protocol.lay_out([small, large, error, 7, large])
    assert slots == [small, None, error, 7, None]
    assert frames == [large, large]


def test_laying_out_small_payloads_copies_nothing():
    slots: list[protocol.Slot] = [b"a", b"b"]
    assert protocol.lay_out(slots)[0] is slots


def test_a_bundle_of_tiny_payloads_is_closed_before_its_head_is_too_large():
    rows = list(range(2**62, 2**62 + 40_000))
    cut = list(protocol.bundles(rows, lambda _: 0))
    assert [row for bundle in cut for row in bundle] == rows
    most = bytes(BUNDLE // MAX_ROWS + 8)
    for bundle in cut:
        report = protocol.Report(bundle, bundle, [most] * len(bundle), 0, 0, 0)
        assert protocol.decode(protocol.report(report, [])) == report


@given(some.lists(some.integers(0, 2 * BUNDLE), max_size=40))
def test_rows_are_cut_into_bundles_in_order_and_none_is_too_large(sizes):
    rows = list(enumerate(sizes))
    cut = list(protocol.bundles(rows, lambda row: row[1]))
    assert [row for bundle in cut for row in bundle] == rows
    for bundle in cut:
        assert bundle
        assert len(bundle) == 1 or sum(size for _, size in bundle) <= BUNDLE
    for bundle, following in pairwise(cut):
        assert sum(size for _, size in bundle) + following[0][1] > BUNDLE
