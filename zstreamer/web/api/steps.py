"""What passes between a server and the interface: a request, a question to the cluster, a response.

A server asks the interface what to do with a request, and does it, until that is a response:

    step = interface.begin(request)
    while not isinstance(step, Response):
        step = step.answered(…what the step asks for…)     # or step.failed(error)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from zstreamer.errors import ZStreamerError
from zstreamer.tracing.context import TraceContext

Header: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class Request:
    """A whole request.

    Args:
        method: upper case.
        path: percent-decoded, without the query.
        query: as it came, without the question mark.
        header: returns the value of the header of a lower-case name, None where there is none.
        body: as it came; a server reads no more than `Limits.max_body` of it.
    """

    method: str
    path: str
    query: str
    header: Callable[[str], str | None]
    body: bytes


@dataclass(slots=True)
class Response:
    """A whole response; a server adds Content-Length, which is `length`, and Date.

    Args:
        status: 200 …
        body: its bytes.
        headers: names in lower case, Content-Type among them.
        left_out: bytes of body that are not sent, see `bare`.
    """

    status: int
    body: bytes
    headers: list[Header] = field(default_factory=list)
    left_out: int = 0

    @property
    def length(self) -> int:
        """Bytes of the body, whether it is sent or left out."""
        return len(self.body) + self.left_out

    def bare(self) -> Response:
        """Return the same without its body: the response to HEAD (RFC 9110, 8.6 and 9.3.2)."""
        return Response(self.status, b"", self.headers, self.length)


@dataclass(slots=True)
class Predict:
    """Have a client run these items: ``predict(items, model=…, timeout=…, …)``.

    Args:
        items: the model's inputs, one at least.
        model: which model to call.
        timeout: seconds that the call may take.
        priority: higher goes first.
        return_exceptions: whether failed items are answered in their places.
        answered: what to do with the outputs.
        failed: what to do with the error that the call raised.
        tenant: to whom the items count; empty for nobody.
        trace: the trace to which the call belongs; None for none.
    """

    items: list[object]
    model: str
    timeout: float
    priority: int
    return_exceptions: bool
    answered: Callable[[Sequence[object]], Step]
    failed: Callable[[ZStreamerError], Step]
    tenant: str = ""
    trace: TraceContext | None = None


@dataclass(slots=True)
class Look:
    """Have the directory say which models there are; `zstreamer.web.directory` keeps it.

    Args:
        answered: what to do with the broker's snapshot.
        failed: what to do where no broker can be reached.
        oldest: seconds; an older snapshot is of no use.
        wait: seconds to wait first.
    """

    answered: Callable[[Mapping[str, object]], Step]
    failed: Callable[[ZStreamerError], Step]
    oldest: float = math.inf
    wait: float = 0.0


@dataclass(slots=True)
class Order:
    """Have hosts load or unload a model: `zstreamer.web.operator` passes it on to the brokers.

    Args:
        action: load or unload.
        name: of the model.
        answered: what to do with what `Operator.give` returns.
        failed: what to do where nobody does it.
    """

    action: str
    name: str
    answered: Callable[[Mapping[str, object]], Step]
    failed: Callable[[ZStreamerError], Step]


Step: TypeAlias = "Predict | Look | Order | Response"
