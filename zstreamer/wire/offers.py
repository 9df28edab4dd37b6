"""What a host of a model repository and a broker tell each other, in the map of a STATUS.

host   ── {"offers": […], "orders": count, "answers": […]} ──>   broker
host   <── {"order": [number, "load" or "unload", name]} ──      broker
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from zstreamer.setting import VERSION
from zstreamer.wire.messages import MAX_NAME, ProtocolError, Status

MAX_OFFERS = 500
"""Versions of models that one host offers."""

MAX_ANSWERS = 100
"""Answers in one message."""

MAX_REASON, MAX_WORDS = 300, 1000
"""Characters that are kept of why a model is not loaded, and of why an order is refused."""


class LoadState(str, Enum):
    """What a host says of a version of a model that it offers."""

    UNLOADED = "unloaded"
    LOADED = "loaded"  # its workers run; whether one is warm, the broker sees
    UNLOADING = "unloading"
    FAILED = "failed"  # its workers have given up


class Offer(NamedTuple):
    """A version of a model that a host can serve; the version is empty where there is none."""

    name: str
    version: str
    state: LoadState
    reason: str = ""


class Order(NamedTuple):
    """What a host is to do; `name` is a model's, or MODEL@VERSION."""

    number: int
    action: str
    name: str


class Answer(NamedTuple):
    """What became of an order.

    `status` is one of HTTP: 200, and then `models` are the names that it is about; else `words` say
    why not.
    """

    number: int
    status: int
    words: str = ""
    models: list[str] = []  # noqa: RUF012  # never changed


class Report(NamedTuple):
    """All that a host offers, how many orders it has taken, and the answers to the latest."""

    offers: list[Offer]
    orders: int
    answers: list[Answer]


def order(asked: Order) -> Status:
    """Return the message that carries an order."""
    return Status({"order": list(asked)})


def read_order(info: Mapping[str, object]) -> Order | None:
    """Return the order in a STATUS; None where there is none.

    Raises:
        ProtocolError: it is malformed.
    """
    row = info.get("order")
    if row is None:
        return None
    if not (type(row) is list and tuple(map(type, row)) == (int, str, str)):
        raise ProtocolError("malformed order")
    return Order(*row)


def report(said: Report) -> Status:
    """Return the message that carries a report."""
    offers = [
        [each.name, each.version, each.state.value, each.reason[:MAX_REASON]]
        for each in said.offers
    ]
    answers = [list(each) for each in said.answers]
    return Status({"offers": offers, "orders": said.orders, "answers": answers})


def read_report(info: Mapping[str, object]) -> Report:
    """Return the report in a STATUS.

    Raises:
        ProtocolError: it is none, or is beyond its bounds.
    """
    offers, orders, answers = (info.get(key) for key in ("offers", "orders", "answers"))
    if not (type(offers) is type(answers) is list and type(orders) is int):
        raise ProtocolError("malformed report")
    if len(offers) > MAX_OFFERS or len(answers) > MAX_ANSWERS:
        raise ProtocolError("a report of too many rows")
    return Report([_offer(row) for row in offers], orders, [_answer(row) for row in answers])


def _offer(row: Any) -> Offer:
    if not (type(row) is list and tuple(map(type, row)) == (str, str, str, str)):
        raise ProtocolError("malformed offer")
    name, version, state, reason = row
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ProtocolError("an offer without the name of a model")
    if version and not VERSION.fullmatch(version):
        raise ProtocolError("an offer whose version is none")
    try:
        return Offer(name, version, LoadState(state), reason[:MAX_REASON])
    except ValueError:
        raise ProtocolError("an offer in an unknown state") from None


def _answer(row: Any) -> Answer:
    if not (type(row) is list and tuple(map(type, row)) == (int, int, str, list)):
        raise ProtocolError("malformed answer")
    number, status, words, models = row
    if status not in (200, 400, 404, 503) or len(models) > MAX_OFFERS:
        raise ProtocolError("malformed answer")
    if not all(type(each) is str and len(each) <= 2 * MAX_NAME for each in models):
        raise ProtocolError("malformed answer")
    return Answer(number, status, words[:MAX_WORDS], models)


def full_name(name: str, version: str) -> str:
    """Return the name by which a version of a model is called for."""
    return f"{name}@{version}" if version else name
