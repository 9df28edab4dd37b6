"""One request on its way through the interface, from its first step to its response."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from zstreamer.errors import BrokerUnreachable, NoWorker, ZStreamerError
from zstreamer.system.logs import Sparing
from zstreamer.tracing.context import of_headers
from zstreamer.web.api import problem
from zstreamer.web.api.metrics import Metrics
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.snapshot import Snapshot
from zstreamer.web.api.steps import Look, Order, Predict, Request, Response, Step

log = logging.getLogger(__name__)

_TROUBLE = "requests not served since the last such line: %d; %s"

_troubles = Sparing(30.0)
"""Callers are told why at once; the log gets a line of each kind for the operator."""


class Exchange:
    """Makes steps whose outcomes come back here, so that errors are written in one way.

    Attributes:
        route: what the metrics call it.
        model: which one it has asked, empty for none.
        items: how many it has asked a model for.
        tenant: to whom they count; empty for nobody.
        failure: writes an error as a response.
    """

    __slots__ = (
        *("_header", "_metrics", "_then", "_without_body"),
        *("began", "failure", "items", "model", "route", "tenant"),
    )

    _then: Callable[..., Step]

    def __init__(self, metrics: Metrics, request: Request) -> None:
        self._metrics = metrics
        self._header = request.header
        self._without_body = request.method == "HEAD"
        self.route = "other"
        self.model = ""
        self.items = 0
        self.tenant = ""
        self.failure: Callable[[Exception], Response] = problem.response
        self.began = metrics.begin(self)

    def predict(
        self,
        items: list[object],
        model: str,
        options: tuple[float, int],
        then: Callable[[Sequence[object]], Step],
        inline_errors: bool = False,
    ) -> Predict:
        """Ask a model; ``then`` says what to do with its outputs, and may raise."""
        self._then = then
        self.model = model
        self.items = len(items)
        timeout, priority = options
        parent = self._header("traceparent")
        trace = of_headers(parent, self._header("tracestate")) if parent else None
        return Predict(
            items,
            model,
            timeout,
            priority,
            inline_errors,
            self._answered,
            self._failed,
            self.tenant,
            trace,
        )

    def look(
        self,
        then: Callable[[Snapshot], Step],
        oldest: float = math.inf,
        wait: float = 0.0,
        otherwise: Callable[[], Step] | None = None,
    ) -> Look:
        """Ask the directory; ``then`` says what to do with the snapshot, and may raise.

        oldest: seconds; an older snapshot is of no use.
        wait: seconds to wait first.
        otherwise: says what to do where no broker answers; None: that is the response.
        """
        self._then = then
        failed = self._failed if otherwise is None else partial(self._instead, otherwise)
        return Look(self._answered, failed, oldest, wait)

    def _instead(self, otherwise: Callable[[], Step], error: ZStreamerError) -> Step:
        if not isinstance(error, BrokerUnreachable):
            return self._failed(error)
        self._then = lambda _: otherwise()
        return self._answered(None)

    def order(self, action: str, name: str, then: Callable[[Mapping[str, object]], Step]) -> Order:
        """Have hosts load or unload a model; ``then`` says what to do once they do it."""
        self._then = then
        return Order(action, name, self._answered, self._failed)

    def first(self, route: Callable[[Exchange, Request], Step], request: Request) -> Step:
        """Take the first step; whatever is raised there becomes a response."""
        try:
            step = route(self, request)
        except Exception as error:  # noqa: BLE001  # no request may end its server
            return self._failed(error)
        return self._ended(step) if type(step) is Response else step

    def _answered(self, answer: object) -> Step:
        try:
            step = self._then(answer)
        except Exception as error:  # noqa: BLE001  # as above
            return self._failed(error)
        return self._ended(step) if type(step) is Response else step

    def _failed(self, error: Exception) -> Response:
        if not isinstance(error, ZStreamerError | Refused):
            log.error("a request failed route=%s", self.route, exc_info=error)
        elif isinstance(error, BrokerUnreachable | NoWorker) and (
            requests := _troubles.admit(time.monotonic(), type(error).__name__, last=str(error))
        ):
            log.warning(_TROUBLE, requests, error)
        return self._ended(self.failure(error))

    def _ended(self, response: Response) -> Response:
        if _troubles.due != math.inf:  # the next request, even a probe, logs the rest
            for _, requests, last in _troubles.flush(time.monotonic()):
                log.warning(_TROUBLE, requests, last)
        self._metrics.end(self, response.status)
        if self._without_body:
            return response.bare()
        return response
