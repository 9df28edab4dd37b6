"""Whatever a model's exceptions do, each becomes an error that can be sent."""

from __future__ import annotations

import gc
import weakref

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer import errors, failure
from zstreamer.errors import Overloaded, PredictError, ZStreamerError
from zstreamer.worker.runner import Runner, encode
from zstreamer.worker.target import explain


class Mute(Exception):
    """Cannot be shown in any way."""

    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class Leaving(Exception):
    """Ends the program of whoever looks at it."""

    def __str__(self):
        raise SystemExit


class Hidden(Exception):
    """Cannot even be walked through by `traceback`."""

    @property
    def __cause__(self):
        raise RuntimeError("no cause")


def mimic():
    """One of ours, but for its details."""
    error = PredictError("words")
    error.details = {}.popitem
    return error


class Numb(Exception):
    def __str__(self):
        return 5  # noqa: PLE0307  # that is what is wrong with it


class Trap:
    """An output whose attributes raise."""

    def __getattr__(self, name):
        raise RuntimeError(f"do not touch {name}")


ODD = [
    Mute(),
    Leaving(),
    Hidden("words"),
    Numb(),
    ValueError("a lone \udc80 surrogate"),
    ValueError("long " * 10**6),
    mimic(),
    ZStreamerError("the root has no code"),
    PredictError(ValueError("an exception in place of a text")),
    PredictError("words", traceback="\udc80"),
    PredictError("words", traceback="long " * 10**6),
    Overloaded("words", retry_after=object()),
]


def named(error):
    return type(error).__name__


def cause(error):
    try:
        raise error
    except BaseException as caught:
        return caught


def is_sound(wire):
    """Whether it can be packed, is of a moderate size and says what kind of error it was."""
    assert len(msgpack.packb(wire)) < 2 * failure.WHOLE
    error = errors.from_wire(msgpack.unpackb(msgpack.packb(wire)))
    assert type(error) in (PredictError, Overloaded)
    return error


@pytest.mark.parametrize("odd", ODD, ids=named)
def test_an_odd_exception_that_predict_raised_is_an_error_that_names_its_type(odd):
    def predict(batch):
        if "odd" in batch:
            raise odd
        return batch

    before, outcome, after = encode(Runner(predict).run(["a", "odd", "b"], [False] * 3))

    error = is_sound(outcome)
    assert error.type == type(odd).__qualname__
    assert "in predict" in error.traceback
    assert [msgpack.unpackb(before), msgpack.unpackb(after)] == ["a", "b"]


@pytest.mark.parametrize("odd", ODD, ids=named)
def test_an_odd_exception_in_an_items_place_is_an_error_that_names_its_type(odd):
    before, outcome, after = encode(["a", odd, "b"])

    error = is_sound(outcome)
    assert error.type == type(odd).__qualname__
    assert [msgpack.unpackb(before), msgpack.unpackb(after)] == ["a", "b"]


def test_why_an_exception_has_no_text_is_said():
    assert failure.message(Mute()) == "(no text: its __str__ raised RuntimeError)"
    assert failure.message(Leaving()) == "(no text: its __str__ raised SystemExit)"


def test_the_middle_of_a_long_text_is_left_out():
    text = failure.message(ValueError("a" * 10**6 + "z" * 10**6))
    assert text.startswith("aaa")
    assert text.endswith("zzz")
    assert f"… ({2 * 10**6 - failure.MESSAGE:,} characters left out) …" in text


@given(some.text() | some.text(some.characters(categories=["Cs"])))
def test_any_text_is_kept_as_far_as_it_is_unicode(text):
    assert failure.message(ValueError(text)) == text.encode(errors="backslashreplace").decode()


@pytest.mark.parametrize(
    "error", [Overloaded("later", 2.5), PredictError("words", "KeyError", "trace")], ids=repr
)
def test_an_error_of_ours_in_an_items_place_stays_as_it_is(error):
    assert failure.returned(error) is error


def test_an_error_of_ours_stays_as_it_is_however_much_its_texts_were_cut():
    worst = type("N" * 300, (Exception,), {})("\U0001f600" * failure.TRACEBACK)
    error = failure.raised(cause(worst))
    assert failure.returned(error) is error


def test_an_output_that_raises_when_it_is_looked_at_fails_alone():
    before, outcome, after = encode(["a", Trap(), "b"])
    error = is_sound(outcome)
    assert error.type == "BadOutput"
    assert "cannot be sent" in error.message
    assert [msgpack.unpackb(before), msgpack.unpackb(after)] == ["a", "b"]


def test_a_model_that_cannot_start_is_explained_whatever_it_raised():
    for odd in ODD:
        text = explain(cause(odd))
        assert "in cause" in text
        msgpack.packb(text)


def test_what_a_failed_batch_held_is_gone_before_its_halves_run():
    class Tensor:
        pass

    alive = []

    def compute(batch):
        tensor = Tensor()
        alive.append(weakref.ref(tensor))
        raise KeyError("inner")

    def predict(batch):
        gc.collect()
        assert not [held for held in alive if held() is not None]
        if len(batch) == 1:
            return batch
        try:
            compute(batch)
        except KeyError as error:
            raise ValueError("outer") from error

    assert Runner(predict).run([1, 2, 3, 4], [False] * 4) == [1, 2, 3, 4]
    assert len(alive) == 3
