"""Hosts of model repositories: what each offers, and the orders that operators give to them.

    operator ── load bert@2 ──> hosts that offer it ──> each starts its workers, and says so

A host is a session on the workers' port that has no model. What it starts are workers like any
others. Pure: told the time and what came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count

from zstreamer.keys.ring import Principal
from zstreamer.wire import offers, protocol
from zstreamer.wire.offers import Answer, Offer, Order
from zstreamer.wire.protocol import MAX_NAME, Frames

ACTIONS = ("load", "unload")

PATIENCE = 4.0
"""Seconds in which a host must say whether it does what it is told."""

MAX_HOSTS = 1000

MAX_TOLD = 512 * 1024
"""Bytes of offers in a snapshot, which is a message, more or less; others are left out."""

NOBODY = "no host here offers models: start `zstreamer worker --repository FOLDER`"


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

    @property
    def place(self) -> str:
        """Its host and process id, for people."""
        return f"{self.info.get('host', '-')}:{self.info.get('pid', '-')}"

    def served(self) -> list[Offer]:
        """Return what it offers and its key allows."""
        key = self.principal
        return [each for each in self.offers if key is None or key.may_serve(each.name)]

    def has(self, name: str) -> bool:
        """Whether it offers a model, or a version of one, of this name."""
        return any(name in (o.name, offers.full_name(o.name, o.version)) for o in self.served())


class Pending:
    """An order that hosts have been given, until all have answered.

    Args:
        waiting: their sessions.
        due: monotonic seconds beyond which the rest counts as silent.
    """

    def __init__(self, waiting: Mapping[bytes, Host], due: float) -> None:
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
            names = dict.fromkeys(name for _, each in done for name in each.models)
            orders = {host.place: host.orders for host, _ in done}
            why_not = [words for _, words in refused]
            return 200, {"models": list(names), "orders": orders, "refused": why_not}
        # One that knows the model says more than one that does not.
        status, why = min(refused, key=lambda each: each[0] == 404)
        return status, {"error": why}


class Hosts:
    """All hosts of one broker.

    Args:
        send: sends frames to a session.

    Attributes:
        known: by session.
    """

    def __init__(self, send: Callable[[bytes, Frames], None]) -> None:
        self.known: dict[bytes, Host] = {}
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
            ProtocolError: what it says is malformed.
        """
        said = offers.read_report(info)
        host = self.known[session]
        host.offers, host.orders = said.offers, said.orders
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

        Those that offer it are told; where none does, all are, since their folders may have it by
        now. Where nobody can be told, the status and the words that say why.
        """
        if not 0 < len(name) <= 2 * MAX_NAME or not name.isprintable():
            return 400, "a model's name is printable text, such as bert or bert@2"
        if not self.known:
            return 404, NOBODY
        told = {s: host for s, host in self.known.items() if host.has(name)} or self.known
        number = next(self._numbers)
        message = protocol.plain(offers.order(Order(number, action, name)))
        pending = Pending(told, now + PATIENCE)
        self._pending = {n: p for n, p in self._pending.items() if p.outcome(now) is None}
        self._pending[number] = pending
        for session in told:
            self._send(session, message)
        return pending

    def rows(self) -> list[dict[str, object]]:
        """Return what the snapshot tells of them."""
        left, rows = MAX_TOLD, list[dict[str, object]]()
        for host in list(self.known.values()):
            told: list[list[str]] = []
            for name, version, state, reason in host.served():
                left -= 4 * (len(name) + len(reason)) + 100
                if left > 0:
                    told.append([name, version, state.value, reason])
            place = {key: host.info.get(key) for key in ("host", "pid")}
            rows.append({**place, "orders": host.orders, "offers": told})
        return rows
