"""The Open Inference Protocol (v2) with binary tensor data: KServe's, Triton's and MLServer's.

    inputs ──> rows, each an item ──> the model ──> outputs, stacked again

The first dimension of every tensor counts the rows. With one declared input an item is its row,
with several a dict of rows by name. A row of numbers is an array, of BYTES it is text (bytes where
the tensor says ``text=False``); a row without dimensions is a plain number, bool, text or bytes.

A model that declares no inputs takes one tensor of any name, datatype and shape; one that declares
no outputs has one, ``output``, of the datatype that its outputs show, or of JSON text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import zstreamer
from zstreamer.errors import BadRequest, NoWorker
from zstreamer.signature import Tensor
from zstreamer.web.api import bodies, options, versions
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.api.bodies import JSON
from zstreamer.web.api.infer import InferRequest
from zstreamer.web.api.json import dumps
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.outputs import UNNAMED
from zstreamer.web.api.signatures import Signatures
from zstreamer.web.api.steps import Request, Response, Step
from zstreamer.web.api.v1 import checked
from zstreamer.web.api.versions import Named

if TYPE_CHECKING:
    from zstreamer.web.api.exchange import Exchange

HEADER_LENGTH = "inference-header-content-length"

_HEADERS = [("content-type", JSON)]


def server() -> Response:
    """Return what this server is."""
    words = {
        "name": "zstreamer",
        "version": zstreamer.__version__,
        "extensions": ["binary_tensor_data", "model_repository"],
    }
    return Response(200, dumps(words), _HEADERS)


def metadata(
    asked: Named, model: str, snapshot: snapshots.Snapshot, signatures: Signatures
) -> Response:
    """Return which tensors a model takes and gives; raises ModelNotFound."""
    inputs, given = signatures.of(model, snapshots.named(snapshot, model)) or (None, None)
    words = {
        "name": asked.model,
        "versions": versions.listed(snapshot, asked.model) or [versions.ONLY],
        "platform": "zstreamer",
        "inputs": _described(inputs, "input"),
        "outputs": _described(given, UNNAMED),
    }
    return Response(200, dumps(words), _HEADERS)


def ready(asked: Named, model: str, snapshot: snapshots.Snapshot) -> Response:
    """Return whether a warm worker serves a model, in the status; raises ModelNotFound."""
    known = snapshots.named(snapshot, model)
    if not snapshots.is_ready(known):
        raise _not_ready(model, known)
    return Response(200, dumps({"name": asked.model, "ready": True}), _HEADERS)


def _not_ready(name: str, model: snapshots.Model) -> NoWorker:
    why = snapshots.trouble(model)
    return NoWorker(f"no worker is ready for model {name!r}" + (f": {why}" if why else ""))


def _described(declared: Sequence[Tensor] | None, unnamed: str) -> list[dict[str, object]]:
    if declared is None:
        return [{"name": unnamed, "datatype": "BYTES", "shape": [-1]}]
    return [
        {"name": each.name, "datatype": each.datatype, "shape": [-1, *each.shape]}
        for each in declared
    ]


def infer(
    exchange: Exchange, request: Request, named: Named, limits: Limits, signatures: Signatures
) -> Step:
    """Have a model run the rows of a request's tensors."""
    exchange.route = "v2_infer"
    timeout, priority = options.of(request, limits)
    head, tail = _parts(request, limits)
    asked = InferRequest(head, tail, checked(named.model), limits)
    if request.header("x-request-timeout") is None:
        timeout = asked.timeout(timeout)

    def then(model: str, snapshot: snapshots.Snapshot) -> Step:
        known = snapshots.named(snapshot, model)
        signature = signatures.of(model, known)
        if signature is None:
            raise _not_ready(model, known)
        items = asked.items(signature)
        # Workers of several versions may answer a call that names none.
        asked.version = named.version or ("" if versions.listed(snapshot, model) else versions.ONLY)
        return exchange.predict(items, model, (timeout, priority), asked.answer)

    return versions.find(exchange, named, then)


def _parts(request: Request, limits: Limits) -> tuple[memoryview, memoryview]:
    """Return the JSON of a body and the binary data behind it."""
    body = memoryview(bodies.plain(request, limits))
    length = request.header(HEADER_LENGTH)
    if length is None:
        return body, body[:0]
    if not (length.isascii() and length.isdigit()) or not 0 < int(length[:20]) <= len(body):
        raise BadRequest(
            f"Inference-Header-Content-Length is {length!r:.50}; it must be the length of the "
            f"JSON, of a body of {len(body)} bytes"
        )
    return body[: int(length)], body[int(length) :]
