"""A host of a model repository as a state machine: which models are there, and which are to run.

    on_connected, on_message, on_lost   what a broker's connection has done
    seen                                what the folder has now
    troubled, ended                     the workers of a model have died, or ended for good
    poll                                → actions for the driver

    UNLOADED ── load ──> LOADED ── unload ──> UNLOADING ── ended ──> UNLOADED
                           └── ended ──> FAILED ── load ──> LOADED

No socket, process, clock, thread or random source in here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from zstreamer.config import WorkerConfig, is_looked_up
from zstreamer.errors import ZStreamerError
from zstreamer.setting import ConfigError, version_order
from zstreamer.wire import offers, protocol
from zstreamer.wire.link import Link, LinkAction, LinkState, Peer
from zstreamer.wire.offers import MAX_ANSWERS, Answer, LoadState, Offer, Order, Report, full_name
from zstreamer.wire.protocol import Frames, ProtocolError
from zstreamer.worker.repository.folder import Entry

REFUSED_PAUSE = 10.0
"""Seconds until a broker that refused is asked again: one of an older release knows no hosts."""

ONLY = "1"
"""The version by which callers may call for a model that has none."""

SHOWN = 20
"""Names of models in a message."""

Key: TypeAlias = "tuple[str, str]"
"""Name and version."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start the workers of a model, and keep them running; `ended` follows if they give up."""

    key: Key
    config: WorkerConfig


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain the workers of a model; `ended` follows."""

    key: Key


LoadAction: TypeAlias = Start | Stop


class HostLink(Link[int]):
    """One broker as the host sees it.

    Attributes:
        answers: to its orders, that it has not been sent.
        told: what it was told last; None where that was nothing.
    """

    def _fresh(self) -> None:
        super()._fresh()
        self.answers: list[Answer] = []
        self.told: Report | None = None

    @property
    def flush_at(self) -> float:
        """Nothing depends on time alone."""
        return math.inf

    def flush(self) -> list[Frames]:
        """Return the messages that are to leave now."""
        return self._flush()[0]


class Row:
    """What is known of one version of a model; the entry is that of the last look."""

    __slots__ = ("entry", "reason", "state")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.state = LoadState.UNLOADED
        self.reason = ""


class RepositoryCore(Peer[HostLink, LoadAction]):
    """One host: its brokers, the models in its folder, and which of them run.

    Args:
        config: what `zstreamer worker --repository` was told.
        id: 63 random bits, new for each incarnation.
        now: monotonic seconds.
        jitter: returns numbers in [0, 1); spreads the attempts to connect of many hosts.
        info: plain values that go into HELLO, for people who look at the broker.
        look: returns what the folder has now.
        settle: returns what the workers of an entry are told; raises ConfigError.
    """

    def __init__(
        self,
        config: WorkerConfig,
        id: int,
        now: float,
        jitter: Callable[[], float],
        info: dict[str, object],
        look: Callable[[], Sequence[Entry]],
        settle: Callable[[Entry], WorkerConfig],
    ) -> None:
        self._max_payload = config.max_payload
        links = [self._link(now, each) for each in config.broker if not is_looked_up(each)]
        super().__init__(protocol.Role.HOST, id, links, jitter, info)
        self.rows: dict[Key, Row] = {}
        self._look = look
        self._settle = settle
        self._orders = 0

    # What has happened

    def seen(self, entries: Sequence[Entry]) -> None:
        """The folder has these now. A model that runs goes on without its folder."""
        there = {(each.name, each.version): each for each in entries}
        for key, entry in there.items():
            self.rows.setdefault(key, Row(entry)).entry = entry
        for key, row in list(self.rows.items()):
            if key not in there and row.state in (LoadState.UNLOADED, LoadState.FAILED):
                del self.rows[key]

    def troubled(self, key: Key, how: str) -> None:
        """The workers of a model have died and are started again; how is empty once they run."""
        self.rows[key].reason = how

    def ended(self, key: Key, how: str) -> None:
        """The workers of a model have ended, and are not started again."""
        row = self.rows[key]
        stopped = row.state is LoadState.UNLOADING
        row.state = LoadState.UNLOADED if stopped else LoadState.FAILED
        row.reason = "" if stopped else how

    def load(self, key: Key) -> str:
        """Have a model's workers started; return why that cannot be, or nothing."""
        row = self.rows[key]
        if row.state is LoadState.LOADED:
            return ""
        try:
            config = self._settle(row.entry)
        except ConfigError as error:
            row.reason = str(error)
            return row.reason
        row.state, row.reason = LoadState.LOADED, ""
        self._actions.append(Start(key, config))
        return ""

    # What to do

    def poll(self, now: float) -> list[LinkAction[HostLink] | LoadAction]:
        """Do what is due and return what the driver must do now."""
        self._leave(now)
        for link in self.links:
            self._check(now, link)
        rows = sorted(self.rows.items())
        offered = [Offer(*key, row.state, row.reason) for key, row in rows]
        for link in self.links:
            if link.state is LinkState.READY:
                plain = Report(offered[: offers.MAX_OFFERS], self._orders, [])
                if link.answers or plain != link.told:
                    link.tell(offers.report(plain._replace(answers=link.answers[:MAX_ANSWERS])))
                    link.answers, link.told = link.answers[MAX_ANSWERS:], plain
                self._send(link, link.flush())
        return self._take_actions()

    # Orders

    def _take(self, order: Order) -> Answer:
        self._orders += 1
        if order.action not in ("load", "unload"):
            return Answer(order.number, 400, f"a host of models cannot {order.action:.20}")
        unread = ""
        try:
            self.seen(self._look())
        except ConfigError:  # its words name a place that is nothing to callers
            unread = "the repository cannot be read now; the log of its host says why"
        keys = self._keys(order.name)
        if order.action == "unload" and keys:  # what runs can be ended without its folder
            return self._unload(order.number, keys)
        if not keys:
            words = f"no model {order.name!r:.300} in the repository: it has {self._names()}"
            return Answer(order.number, 503, unread) if unread else Answer(order.number, 404, words)
        key = max(keys, key=lambda each: version_order(each[1]))
        name = full_name(*key)
        if self.rows[key].state is LoadState.UNLOADING:
            return Answer(order.number, 503, f"{name} is still being unloaded: try again later")
        if unread and self.rows[key].state is not LoadState.LOADED:
            return Answer(order.number, 503, unread)
        why = self.load(key)
        return Answer(order.number, 400, why) if why else Answer(order.number, 200, "", [name])

    def _keys(self, name: str) -> list[Key]:
        """Return what an order's name means: a version, all of a model, or MODEL@1 without any."""
        keys = [key for key in self.rows if name in (key[0], full_name(*key))]
        # The index calls a model without versions by this one, as callers of `infer` may.
        return keys or [key for key in self.rows if not key[1] and name == full_name(key[0], ONLY)]

    def _unload(self, number: int, keys: list[Key]) -> Answer:
        for key in keys:
            row = self.rows[key]
            if row.state is LoadState.LOADED:
                row.state, row.reason = LoadState.UNLOADING, ""
                self._actions.append(Stop(key))
            elif row.state is LoadState.FAILED:
                row.state, row.reason = LoadState.UNLOADED, ""
        return Answer(number, 200, "", [full_name(*key) for key in keys])

    def _names(self) -> str:
        names = [full_name(*key) for key in sorted(self.rows)]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return (", ".join(names[:SHOWN]) or "none") + more

    # Links

    def _link(self, now: float, address: str) -> HostLink:
        return HostLink(address, now, self._max_payload)

    def _may_leave(self, _link: HostLink) -> bool:
        return True

    def _wanted(self, _link: HostLink) -> bool:
        return True

    def _greeting(self, _link: HostLink) -> dict[str, object]:
        return {}

    def _welcome(self, now: float, link: HostLink, welcome: protocol.Welcome) -> None:
        """The first report follows with `poll`."""

    def _refused(self, now: float, link: HostLink, error: ZStreamerError) -> None:
        super()._refused(now, link, error)
        link.retry_at = now + REFUSED_PAUSE

    def _message(
        self, now: float, link: HostLink, message: protocol.Message, _frames: Frames
    ) -> None:
        if not isinstance(message, protocol.Status):
            return  # PING, and whatever a later broker says that does not concern us
        try:
            order = offers.read_order(message.info)
        except ProtocolError as error:
            self._drop(now, link)
            link.trouble = f"{link.address}: {error}"
            return
        if order is not None:
            link.answers.append(self._take(order))
