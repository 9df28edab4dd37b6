"""Payloads on their way to predict: joined, prepared in company, and how many at once."""

from __future__ import annotations

import time

import pytest

from zstreamer import ManagedModel, codec
from zstreamer.errors import BadRequest
from zstreamer.model import Loaded
from zstreamer.worker import pipe, preparation
from zstreamer.worker.preparation import Preparation, Raised, Ready


class Doubles(ManagedModel):
    """Doubles numbers together; None spoils the company, and the wrong count is returned for 99."""

    def prepare_batch(self, items):
        return [2 * item for item in items if item != 99]

    def cost(self, item):
        return item / 2

    def predict(self, batch):
        return batch


def run(model, *items):
    found = Preparation(Loaded(model), codec.decode).run([codec.encode(item) for item in items])
    return [type(each.error) if isinstance(each, Raised) else each for each in found]


def test_items_are_prepared_in_company_and_weighed():
    assert run(Doubles, 1, 2) == [Ready(2, 1.0), Ready(4, 2.0)]
    assert run(Doubles) == []


def test_who_spoils_the_company_fails_alone():
    assert run(Doubles, 1, None, 2) == [Ready(2, 1.0), TypeError, Ready(4, 2.0)]


def test_a_company_of_the_wrong_number_is_prepared_one_by_one():
    assert run(Doubles, 1, 99) == [Ready(2, 1.0), ValueError]


def test_a_payload_that_is_none_does_not_harm_the_others():
    model = Loaded(Doubles)
    first, bad = Preparation(model, codec.decode).run([codec.encode(1), b"\xc1"])
    assert first == Ready(2, 1.0)
    assert isinstance(bad.error, BadRequest)


def test_a_broken_device_is_told_for_all():
    class Broken(Doubles):
        def prepare_batch(self, items):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        def prepare(self, item):
            raise AssertionError("nothing can run in this process")

    assert (
        run(type("Broken2", (Broken,), {"prepare_batch": Broken.prepare_batch}), 1, 2)
        == [RuntimeError] * 2
    )


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 32), (0.1, 16), (1.0, 8)])
def test_calls_become_longer_while_they_are_brief(monkeypatch, seconds, expected):
    now = iter([0.0, seconds])
    monkeypatch.setattr(time, "monotonic", lambda: next(now, seconds))
    found = Preparation(Loaded(Doubles), codec.decode)
    found.run([codec.encode(1)] * preparation.FIRST)
    monkeypatch.undo()
    assert found.at_once == expected


def test_items_that_follow_each_other_are_joined_and_suspects_are_not():
    def items(*ids, once=False, alone=False):
        return pipe.Items(list(ids), [b""] * len(ids), once, alone)

    said = [
        *(items(1), items(2, 3), pipe.Plan(1, [1]), items(4), items(5, once=True)),
        *(items(6, once=True), items(7, alone=True), items(8)),
    ]
    assert list(pipe.joined(said)) == [
        *(items(1, 2, 3), pipe.Plan(1, [1]), items(4), items(5, 6, once=True)),
        *(items(7, alone=True), items(8)),
    ]
    many = [items(*range(200)), items(*range(200, 300))]
    assert [len(each.ids) for each in pipe.joined(many)] == [200, 100]
