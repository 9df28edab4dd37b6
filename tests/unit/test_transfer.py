"""Large payloads in parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.helpers.wire import received
from zstreamer.errors import Code
from zstreamer.wire import protocol
from zstreamer.wire.protocol import PART
from zstreamer.wire.transfer import IN_FLIGHT, Parts, Receiver, Sender, cut


def parts_of(messages):
    found = []
    for frames in messages:
        part = protocol.decode(received(frames))
        assert isinstance(part, protocol.Part)
        found.append((part.transfer, len(part.data)))
    return found


@given(some.integers(1, 12).flatmap(lambda n: some.integers((n - 1) * PART + 1, n * PART)))
def test_a_payload_arrives_whole_whatever_its_size(size):
    payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    sender: Sender[str] = Sender()
    receiver = Receiver(size)
    sender.start(payload, "row")
    done: list[tuple[int, str]] = []
    while not done:
        messages, done = sender.poll()
        assert messages or done, "the transfer stands still"
        for frames in messages:
            part = protocol.decode(received(frames))
            assert isinstance(part, protocol.Part)
            receiver.part(part.transfer, part.data)
            sender.ok()
    ((transfer, row),) = done
    came = receiver.take(transfer)
    assert isinstance(came, Parts)
    assert (row, len(came), came.join()) == ("row", size, payload)
    assert receiver.bytes == len(sender) == 0


def test_only_a_few_parts_are_unread_over_all_transfers_together():
    sender: Sender[str] = Sender()
    sender.start(bytes(3 * PART), "first")
    sender.start(bytes(3 * PART), "second")
    assert parts_of(sender.poll()[0]) == [(1, PART)] * 3 + [(2, PART)]
    assert sender.poll() == ([], [])
    sender.ok()
    messages, rows = sender.poll()
    assert parts_of(messages) == [(2, PART)]
    assert rows == []


def test_a_row_follows_its_last_part_and_not_before():
    sender: Sender[str] = Sender()
    sender.start(bytes(IN_FLIGHT * PART), "row")
    assert sender.poll()[1] == []
    sender.ok()
    assert sender.poll() == ([], [(1, "row")])


def test_numbers_of_transfers_are_not_used_again():
    sender: Sender[str] = Sender()
    assert [sender.reserve(), sender.reserve()] == [1, 2]
    sender.start(bytes(2 * PART), "row")
    assert parts_of(sender.poll()[0]) == [(3, PART)] * 2


def test_a_payload_that_came_in_parts_goes_on_in_the_same_parts():
    frames: list[protocol.Buffer] = [b"a" * PART, b"b"]
    assert cut(Parts(frames)) is frames


def test_a_transfer_that_has_begun_ends_with_an_empty_part():
    sender: Sender[str] = Sender()
    sender.start(bytes(9 * PART), "first")
    sender.start(bytes(2 * PART), "second")
    sender.poll()
    assert sender.give_up("first")
    assert len(sender) == 2  # the other, and the word that is still to be said
    messages, rows = sender.poll()
    assert parts_of(messages) == [(1, 0)]
    assert rows == []
    for _ in range(5):
        sender.ok()
    assert parts_of(sender.poll()[0]) == [(2, PART)] * 2


def test_a_transfer_that_has_not_begun_ends_without_a_word():
    sender: Sender[str] = Sender()
    for row in ("first", "second", "third"):
        sender.start(bytes(9 * PART), row)
    sender.poll()
    assert sender.give_up("third")
    assert sender.give_up("second")
    assert sender.poll() == ([], [])
    assert not sender.give_up("second")


def test_a_receiver_forgets_what_was_given_up():
    receiver = Receiver(9 * PART)
    receiver.part(1, bytes(PART))
    receiver.part(2, b"other")
    receiver.part(1, b"")
    assert receiver.bytes == 5
    assert receiver.take(1) is None
    receiver.part(3, b"")  # of a transfer that never began
    assert receiver.take(3) is None


def test_stopping_gives_back_the_rows_that_have_not_gone():
    sender: Sender[str] = Sender()
    sender.start(bytes(2 * PART), "first")
    sender.start(bytes(2 * PART), "second")
    assert sender.poll()[1] == [(1, "first")]
    assert sender.stop() == ["second"]
    assert len(sender) == 0


def test_a_payload_beyond_the_limit_is_counted_and_not_kept():
    receiver = Receiver(10)
    for _ in range(3):
        receiver.part(1, b"12345")
    receiver.part(2, b"kept")
    assert receiver.bytes == 4
    assert receiver.take(1) == 15
    assert receiver.bytes == 4
    assert receiver.take(1) is None


@pytest.mark.parametrize(("slot", "code"), [(1, Code.TOO_LARGE), (9, Code.BAD_REQUEST)])
def test_a_slot_whose_transfer_is_no_good_holds_the_error(slot, code):
    receiver = Receiver(10)
    receiver.part(1, bytes(11))
    wire = receiver.payload(slot)
    assert isinstance(wire, list)
    assert wire[0] == code
