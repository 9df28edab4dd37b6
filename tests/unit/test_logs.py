"""Lines that are written seldom, however often there is something to say."""

from zstreamer.system.logs import Sparing


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
