"""Lines that are written seldom, however often there is something to say."""

import json
import logging
import math

import pytest

from zstreamer.system.logs import FORMAT, JsonFormatter, Sparing, event, printable


def record(message, *args, exc_info=None):
    return logging.LogRecord("zstreamer.x", logging.WARNING, "", 0, message, args, exc_info)


def test_an_event_is_a_line_of_words_and_values():
    line = event("worker came", why="it said so", model="my model", pid=7, share=0.5)
    assert line == 'worker came model="my model" pid=7 share=0.5: it said so'
    assert event("ready", first=True, model="default") == "model=default ready"
    assert (
        logging.Formatter(FORMAT)
        .format(record(event("100%", x="a=b\nc")))
        .endswith('100% x="a=b\\nc"')
    )


def test_in_json_the_values_are_members_of_the_line():
    line = event("worker failed", why="it died", model='a "b"\n', pid=7)
    text = JsonFormatter().format(record(line))
    assert "\n" not in text
    found = json.loads(text)
    assert {"level": "warning", "logger": "zstreamer.x", "event": "worker failed"}.items() <= (
        found.items()
    )
    assert (found["model"], found["its_pid"], found["why"]) == ('a "b"\n', 7, "it died")
    assert found["pid"] != 7
    assert found["time"].endswith("Z")


def test_other_lines_are_events_without_members_and_have_their_traceback():
    try:
        raise ValueError("it broke\nin two lines")
    except ValueError as error:
        info = type(error), error, error.__traceback__
    text = JsonFormatter().format(record("%d of %s", 3, "these", exc_info=info))
    assert "\n" not in text
    found = json.loads(text)
    assert found["event"] == "3 of these"
    assert "ValueError: it broke" in found["traceback"]


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
