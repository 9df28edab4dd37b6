"""Lines that are written seldom, however often there is something to say."""

import math

import pytest

from zstreamer.system.logs import Sparing, printable


def test_the_first_of_a_kind_is_told_at_once_and_the_others_with_the_next_line():
    lines = Sparing(5.0)
    assert lines.admit(100.0, "ValueError") == 1
    assert [lines.admit(100.0 + i, "ValueError") for i in range(5)] == [0] * 5
    assert lines.admit(105.0, "ValueError") == 6
    assert lines.admit(200.0, "ValueError", 7) == 7


def test_each_kind_has_lines_of_its_own():
    lines = Sparing(5.0)
    assert [lines.admit(100.0, kind) for kind in "aabba"] == [1, 0, 1, 0, 0]
    assert lines.admit(105.0, "a") == 3


def test_kinds_without_end_cost_neither_memory_nor_lines():
    lines = Sparing(5.0, kinds=10)
    told = sum(lines.admit(100.0, f"kind {i}") > 0 for i in range(1000))
    assert told == 11
    assert len(lines._due) + len(lines._held) <= 22
    assert lines.admit(105.0, "one more") == 990


def test_what_is_held_back_is_told_when_it_is_due():
    lines = Sparing(5.0)
    assert lines.due == math.inf
    lines.admit(100.0, "a", last="the first")
    assert (lines.flush(200.0), lines.due) == ([], math.inf)
    lines.admit(300.0, "a", last="told")
    lines.admit(301.0, "b", last="told")
    for i in range(3):
        lines.admit(302.0, "a", last=f"a {i}")
        lines.admit(302.0, "b", 2, last=f"b {i}")
    assert (lines.flush(304.9), lines.due) == ([], 305.0)
    assert lines.flush(305.0) == [("a", 3, "a 2")]
    assert lines.due == 306.0
    lines.admit(305.1, "a", last="next")
    assert lines.flush(306.0) == [("b", 6, "b 2")]
    assert lines.flush(math.inf) == [("a", 1, "next")]
    assert lines.due == math.inf


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain ünï", "plain ünï"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines", r"two\nlines"),
        ("\u202eright to left", r"\u202eright to left"),
        ("a lone \udc80", r"a lone \udc80"),
        ("x" * 99, "x" * 50 + "…"),
    ],
)
def test_what_a_peer_says_moves_no_cursor_and_breaks_no_line(said, shown):
    assert printable(said, 50) == shown
