"""Hosts of model repositories: what each offers, and the orders that operators give to them.

    operator ── load bert@2 ──> hosts that offer it ──> each starts its workers, and says so

A host is a session on the workers' port that has no model. What it starts are workers like any
others. Pure: told the time and what came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import count

from zstreamer.keys.ring import Principal
from zstreamer.wire import offers, protocol
from zstreamer.wire.offers import Answer, LoadState, Offer, Order
from zstreamer.wire.protocol import MAX_NAME, Frames, ProtocolError

ACTIONS = ("load", "unload")

PATIENCE = 4.0
"""Seconds in which a host must say whether it does what it is told."""

MAX_HOSTS = 1000

MAX_TOLD = 512 * 1024
"""Bytes of offers in a snapshot, which is a message, more or less; each host has a share of it."""

MAX_HELD = 64 * 1024 * 1024
"""Bytes that all offers may take here, more or less; a host whose offers go beyond is refused."""

OFFER = 300
"""Bytes that an offer takes, without its texts."""

COMING = 10.0
"""Seconds after the broker's start in which hosts may still be on their way back to it."""

NOBODY = "no host here offers models: start `zstreamer worker --repository FOLDER`"
NOBODY_YET = "the broker has just started, and no host has come back to it yet: ask again"

_RUNS = (LoadState.LOADED, LoadState.UNLOADING)


class Host:
    """One host.

    Args:
        session: routing id of its connection.
        id: its own, of 63 random bits.
        info: what HELLO said of it, as far as it is kept.
        principal: whose key it has; None where the broker asks for none.

    Attributes:
        offers: all that its folder has.
        orders: how many it has taken; what it offers is as of then.
        held: bytes that its offers take here, more or less.
    """

    def __init__(
        self, session: bytes, id: int, info: dict[str, object], principal: Principal | None
    ) -> None:
        self.session = session
        self.id = id
        self.info = info
        self.principal = principal
        self.offers: list[Offer] = []
        self.orders = 0
        self.held = 0

    @property
    def name(self) -> str:
        """Its id as snapshots have it: unlike its place, no other host has it."""
        return f"{self.id:x}"

    @property
    def place(self) -> str:
        """Its host and process id, for people."""
        return f"{self.info.get('host', '-')}:{self.info.get('pid', '-')}"

    def may_serve(self, model: str) -> bool:
        """Whether its key allows it to serve a model."""
        return self.principal is None or self.principal.may_serve(model)

    def served(self) -> list[Offer]:
        """Return what it offers and its key allows."""
        return [each for each in self.offers if self.may_serve(each.name)]

    def has(self, name: str) -> bool:
        """Whether it offers a model, or a version of one, of this name."""
        return any(name in (o.name, offers.full_name(o.name, o.version)) for o in self.served())

    def row(self, most: int) -> dict[str, object]:
        """Return what the snapshot tells of it, in about so many bytes.

        What runs comes first, and reasons are left out before models are.
        """
        served = sorted(self.served(), key=lambda each: each.state not in _RUNS)
        reasons = sum(map(_size, served)) <= most
        told: list[list[str]] = []
        for each in served:
            most -= _size(each if reasons else each._replace(reason=""))
            if most < 0:
                break
            told.append([each.name, each.version, each.state.value, each.reason if reasons else ""])
        row: dict[str, object] = {
            "id": self.name,
            "host": self.info.get("host"),
            "pid": self.info.get("pid"),
            "orders": self.orders,
            "offers": told,
        }
        return {**row, "left_out": len(served) - len(told)} if len(told) < len(served) else row


def _size(offer: Offer) -> int:
    return 4 * (len(offer.name) + len(offer.reason)) + 100


class Pending:
    """An order that hosts have been given, until all have answered.

    Args:
        name: of the model, or MODEL@VERSION.
        waiting: their sessions.
        due: monotonic seconds beyond which the rest counts as silent.
    """

    def __init__(self, name: str, waiting: Mapping[bytes, Host], due: float) -> None:
        self._name = name
        self._waiting = dict(waiting)
        self._due = due
        self._answers: list[tuple[Host, Answer]] = []

    def answered(self, session: bytes, answer: Answer) -> None:
        """A host has answered."""
        if (host := self._waiting.pop(session, None)) is not None:
            self._answers.append((host, answer))

    def outcome(self, now: float) -> tuple[int, dict[str, object]] | None:
        """Return status and body of what came of it; None while hosts may still answer."""
        if now >= self._due:
            for session, host in list(self._waiting.items()):
                words = f"the host {host.place} does not answer; it may still act"
                self.answered(session, Answer(0, 503, words))
        if self._waiting:
            return None
        done = [(host, each) for host, each in self._answers if each.status == 200]
        refused = [(each.status, each.words) for _, each in self._answers if each.status != 200]
        if done:
            names = dict.fromkeys(
                name for _, each in done for name in each.models if self._is_meant(name)
            )
            orders = {host.name: host.orders for host, _ in done}
            # One that does not know the model has nothing to do.
            why_not = list(dict.fromkeys(words for status, words in refused if status != 404))
            return 200, {"models": list(names), "orders": orders, "refused": why_not}
        # One that knows the model says more than one that does not.
        status, why = min(refused, key=lambda each: each[0] == 404)
        return status, {"error": why}

    def _is_meant(self, name: str) -> bool:
        """Whether the order is about this one of those that a host has named."""
        model, _, version = self._name.partition("@")
        return name in (self._name, model) or (not version and name.startswith(f"{model}@"))


class Hosts:
    """All hosts of one broker.

    Args:
        send: sends frames to a session.

    Attributes:
        known: by session.
        born: monotonic seconds at which the broker has started.
    """

    def __init__(self, send: Callable[[bytes, Frames], None]) -> None:
        self.known: dict[bytes, Host] = {}
        self.born = -math.inf
        self._send = send
        self._numbers = count(1)
        self._pending: dict[int, Pending] = {}

    @property
    def full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self.known) >= MAX_HOSTS

    def told(self, session: bytes, info: Mapping[str, object]) -> None:
        """A host says what it offers.

        Raises:
            ProtocolError: what it says is malformed, or more than there is room for.
        """
        said = offers.read_report(info)
        host = self.known[session]
        held = sum(OFFER + 4 * len(each.reason) + len(each.name) for each in said.offers)
        others = sum(each.held for each in self.known.values()) - host.held
        if others + held > MAX_HELD:
            raise ProtocolError("all hosts together offer more than the broker keeps")
        host.offers, host.orders, host.held = said.offers, said.orders, held
        for answer in said.answers:
            if (pending := self._pending.get(answer.number)) is not None:
                pending.answered(session, answer)

    def gone(self, session: bytes) -> None:
        """A session has ended, perhaps that of a host."""
        if (host := self.known.pop(session, None)) is not None:
            lost = Answer(0, 503, f"the host {host.place} was lost; it may still act")
            for pending in self._pending.values():
                pending.answered(session, lost)

    def order(self, now: float, action: str, name: str) -> Pending | tuple[int, str]:
        """Have hosts load or unload a model; return what will say what came of it.

        Those that offer it are told; where none does, all are whose keys allow it, since their
        folders may have it by now. Where nobody can be told, the status and the words that say why.
        """
        if not 0 < len(name) <= 2 * MAX_NAME or not name.isprintable():
            return 400, "a model's name is printable text, such as bert or bert@2"
        if not self.known:
            return (503, NOBODY_YET) if now - self.born < COMING else (404, NOBODY)
        model = name.partition("@")[0]
        able = {s: host for s, host in self.known.items() if host.may_serve(model)}
        if not able:
            return 404, f"no host here has a key that may serve {model!r}"
        told = {s: host for s, host in able.items() if host.has(name)} or able
        number = next(self._numbers)
        message = protocol.plain(offers.order(Order(number, action, name)))
        pending = Pending(name, told, now + PATIENCE)
        self._pending = {n: p for n, p in self._pending.items() if p.outcome(now) is None}
        self._pending[number] = pending
        for session in told:
            self._send(session, message)
        return pending

    def rows(self) -> list[dict[str, object]]:
        """Return what the snapshot tells of them."""
        known = list(self.known.values())
        return [host.row(MAX_TOLD // len(known)) for host in known]
