"""The error tree: one class for each code, and nothing is lost on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zstreamer import errors
from zstreamer.errors import (
    CLASSES,
    BrokerUnreachable,
    Code,
    DeadlineExceeded,
    ModelNotFound,
    NoWorker,
    Overloaded,
    PredictError,
    ZStreamerError,
    from_wire,
    to_wire,
)

anything = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text() | some.binary(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=6,
)


def leaves(cls=ZStreamerError):
    """The classes at the ends of the tree; users, and other tests, may derive their own."""
    found = [c for c in cls.__subclasses__() if c.__module__ == cls.__module__]
    return [x for c in found for x in leaves(c)] if found else [cls]


def test_every_class_has_one_code_and_every_code_one_class():
    assert sorted(cls.code for cls in leaves()) == sorted(Code) == sorted(CLASSES)
    assert all(CLASSES[cls.code] is cls for cls in leaves())


@pytest.mark.parametrize("cls", leaves())
def test_every_class_says_what_its_catcher_should_do(cls):
    assert cls.__doc__
    assert ". " in cls.__doc__.partition("\n")[0] or cls.__name__ == "Cancelled"


@pytest.mark.parametrize(
    "error",
    [
        *(cls("words") for cls in leaves()),
        ModelNotFound("words", ["a", "b"]),
        Overloaded("words", 2.5),
        NoWorker("words", final=True),
        PredictError("words", "ValueError", "Traceback …"),
    ],
    ids=repr,
)
def test_an_error_crosses_the_wire_without_losing_anything(error):
    again = from_wire(to_wire(error))
    assert type(again) is type(error)
    assert (again.message, again.details()) == (error.message, error.details())
    assert str(again) == str(error)


def test_a_code_of_a_newer_peer_is_still_an_error():
    error = from_wire([777, "words", {"new": 1}])
    assert type(error) is ZStreamerError
    assert str(error) == "unknown error 777: words"


@given(some.lists(anything, max_size=5) | some.tuples(some.sampled_from(Code), anything, anything))
def test_whatever_a_peer_sends_becomes_an_error_and_nothing_else_happens(wire):
    error = from_wire(wire)
    assert isinstance(error, ZStreamerError)
    assert isinstance(str(error), str)


@pytest.mark.parametrize("wire", [[], [429], [429, "words"], [404, "words", {"models": 5}]])
def test_an_error_cut_short_is_still_an_error(wire):
    assert isinstance(from_wire(wire), ZStreamerError)


@pytest.mark.parametrize("retry_after", [None, "soon", [], True])
def test_a_time_to_come_back_that_makes_no_sense_is_a_second(retry_after):
    error = from_wire([429, "words", {"retry_after": retry_after}])
    assert isinstance(error, Overloaded)
    assert error.retry_after == 1.0


def test_errors_are_also_what_a_caller_may_already_catch():
    assert issubclass(DeadlineExceeded, TimeoutError)
    assert issubclass(BrokerUnreachable, ConnectionError)
    assert issubclass(errors.BadRequest, ValueError)
    assert issubclass(errors.TooLarge, ValueError)


def test_a_remote_traceback_is_shown_with_the_error():
    shown = str(PredictError("bad word", "KeyError", "Traceback (most recent call last): …"))
    assert shown.startswith("KeyError: bad word\n\nremote Traceback")
    assert str(PredictError("bad word", "KeyError")) == "KeyError: bad word"
