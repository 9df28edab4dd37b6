"""Orders of operators, on their way from the HTTP threads to the loop, and who may give them.

Anyone who reaches the HTTP port may read. To give an order takes the operator's token; where the
broker has none, and asks for no keys, a program on this machine may, but no page in a browser.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import queue
import threading
from collections.abc import Callable

from zstreamer.broker import operator
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.hosts import Pending
from zstreamer.broker.operator import Outcome
from zstreamer.setting import shown
from zstreamer.system.pages import Page, Request, words

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that an order waits for the broker's loop."""

BUSY = "the broker's loop is busy or ends; nothing was done"
MAY_ACT = "the broker's loop is busy or ends; it may still act"

FAILED = "the broker failed at this, and may have done a part; its log says why; it goes on"

_FORWARDED = ("Forwarded", "X-Forwarded-For", "Via")
_BROWSER = ("Origin", "Referer", "Sec-Fetch-Site")
"""Headers of a request that comes from elsewhere although its connection is a local one."""


class Orders:
    """Takes orders over HTTP, and gives them to the loop.

    Args:
        token: what an operator must know; empty for none.
        keys: whether the broker asks for keys; then being on its machine is not enough.
    """

    def __init__(self, token: str, *, keys: bool = False) -> None:
        self._token = token
        self._keys = keys
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._pending: list[tuple[_Order, Pending]] = []

    @property
    def by_token(self) -> bool:
        """Whether there is a token, so that a page in a browser may give orders, too."""
        return bool(self._token)

    def take(self, request: Request) -> Page:
        """Answer a request once the loop has done what it asks for."""
        if why := self._forbidden(request):
            return words(403, {"error": why})
        try:
            asked = json.loads(request.body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            return words(400, {"error": "the body must be a JSON object with action and name"})
        order = _Order(asked.get("action"), asked.get("name"), asked.get("change"), request.gone)
        self._orders.put(order)
        if not order.done.wait(PATIENCE):
            return words(503, {"error": MAY_ACT if order.give_up() else BUSY})
        return words(*order.outcome)

    def carry_out(self, core: BrokerCore, now: float) -> None:
        """Do what has been asked for; called by the loop."""
        while not self._orders.empty():
            order = self._orders.get()
            if not order.begin():
                continue
            try:
                outcome = operator.act(core, now, order.action, order.name, order.change)
            except Exception:  # an order must not end the broker
                log.exception("operator order failed")
                outcome = Outcome(500, {"error": FAILED})
            if isinstance(outcome, Pending):
                self._pending.append((order, outcome))
            else:
                order.end(outcome)
        for order, pending in list(self._pending):
            if (found := pending.outcome(now)) is not None:
                self._pending.remove((order, pending))
                order.end(Outcome(*found))

    def _forbidden(self, request: Request) -> str:
        """Return why a request may change nothing here; empty where it may."""
        if self._token:
            given = request.headers.get("Authorization", "").encode()
            right = hmac.compare_digest(given, f"Bearer {self._token}".encode())
            return "" if right else "the operator's token is missing or wrong"
        if self._keys:
            return "this broker asks for keys: start it with --operator-token, and send the token"
        peer = ipaddress.ip_address(request.peer.partition("%")[0])
        local = (getattr(peer, "ipv4_mapped", None) or peer).is_loopback
        if not local or any(each in request.headers for each in (*_FORWARDED, *_BROWSER)):
            return "start the broker with --operator-token to act from elsewhere than its machine"
        return ""


class _Order:
    """What an HTTP thread has the loop do.

    One that nobody waits for any more is not begun: a broker that stood still would else do, long
    after, what an operator has given up and perhaps done otherwise.

    Args:
        action, name, change: see `zstreamer.broker.operator`.
        gone: whether whoever gave it has hung up.
    """

    def __init__(
        self, action: object, name: object, change: object, gone: Callable[[], bool]
    ) -> None:
        self.action = action
        self.name = name
        self.change = change
        self.outcome = Outcome(503, {"error": BUSY})
        self.done = threading.Event()
        self._gone = gone
        self._lock = threading.Lock()
        self._begun = self._given_up = False

    def begin(self) -> bool:
        """The loop has come to it; return whether it is to be done."""
        with self._lock:
            self._begun = not (self._given_up or self._gone())
        if not self._begun:
            log.info("operator action=%s dropped: nobody waits for it", shown(self.action, 20))
        return self._begun

    def give_up(self) -> bool:
        """Nobody waits for it any more; return whether it has begun, and may still be done."""
        with self._lock:
            self._given_up = True
            return self._begun

    def end(self, outcome: Outcome) -> None:
        """It is done, or refused."""
        log.info(
            "operator action=%s name=%s change=%s status=%d",
            shown(self.action, 20),
            shown(self.name, 200),
            shown(self.change, 500),
            outcome.status,
        )
        self.outcome = outcome
        self.done.set()
