"""The REST convention of TensorFlow Serving and KServe v1, with msgpack beside JSON.

    {"instances": ["one", "two"]}   ──>   {"predictions": [1, 2]}
    s=one&s=two at /stream          ──>   [1, 2]
    files at :predict               ──>   {"predictions": [1, 2]}

Each instance is an item, as the model sees it. ``{"b64": "…"}`` stands for bytes, as in TensorFlow
Serving; arrays travel as lists in JSON, and as they are in msgpack.

A call with an item that fails is an error, unless its query says ``errors=inline``: then the status
is 200, and each item that failed is answered with ``{"error": {…}}``, a problem document.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zstreamer import codec
from zstreamer.errors import BadRequest, PredictError, ZStreamerError
from zstreamer.web.api import bodies, json, openai, options, problem, uploads, versions
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.api.bodies import FORM, JSON, MSGPACK
from zstreamer.web.api.json import check_single, dumps, loads
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.steps import Request, Response, Step
from zstreamer.web.api.versions import Named
from zstreamer.wire.protocol import MAX_NAME

if TYPE_CHECKING:
    from zstreamer.web.api.exchange import Exchange

_JSON_HEADERS = [("content-type", JSON)]
_MSGPACK_HEADERS = [("content-type", MSGPACK)]


def predict(exchange: Exchange, request: Request, asked: Named, limits: Limits) -> Step:
    """Have a model run the instances of a body."""
    exchange.route = "v1_predict"
    body = request.body
    inline = bool(request.query) and _inline(request.query)
    # An object in JSON begins with a brace, and of all else that is read here only files may. So
    # `curl -d '{…}'`, which calls it a form, works.
    if uploads.is_upload(bodies.named(request)):
        content_type = request.header("content-type") or ""
        packed, items = False, uploads.files(content_type, bodies.plain(request, limits), limits)
    elif body[:1] == b"{" and len(body) <= limits.max_body:
        packed, items = False, _json(body, limits)
    else:
        body = bodies.plain(request, limits)
        packed = body[:1] != b"{" and bodies.kind(request) == MSGPACK
        items = _rows(bodies.msgpack(body, limits)) if packed else _json(body, limits)
    check_count(items, "instances", limits)
    then = _packed if options.wants_msgpack(request, packed) else _predictions
    checked(asked.model)
    ways = options.of(request, limits)
    if not asked.version:
        return exchange.predict(items, asked.model, ways, then, inline)
    return versions.find(
        exchange, asked, lambda model, _: exchange.predict(items, model, ways, then, inline)
    )


def stream(exchange: Exchange, request: Request, model: str, limits: Limits) -> Step:
    """Have a model run the fields ``s`` of a form; the answer is the list of outputs."""
    exchange.route = "stream"
    body = bodies.plain(request, limits)
    if (request.header("content-type") or FORM).partition(";")[0].strip().lower() != FORM:
        raise Refused(415, f"/stream reads {FORM}; send JSON to /v1/models/{model}:predict")
    items = bodies.field(body)
    if not items:
        raise BadRequest("the form has no field s; send s=TEXT, once for each item")
    check_count(items, "fields s", limits)
    return exchange.predict(items, checked(model), options.of(request, limits), _outputs)


def listed(snapshot: snapshots.Snapshot) -> Response:
    """Return the names of all models, as KServe and as OpenAI do, and the state of each."""
    served = snapshots.served(snapshot)
    words = {
        "object": "list",
        "data": [openai.card(name) for name in sorted(served)],
        "models": sorted(served),
        "states": [snapshots.status(name, each) for name, each in sorted(served.items())],
    }
    return Response(200, dumps(words), _JSON_HEADERS)


def one(name: str, snapshot: snapshots.Snapshot) -> Response:
    """Return the state of one model; raises ModelNotFound."""
    state = snapshots.status(name, snapshots.named(snapshot, name))
    return Response(200, dumps({**openai.card(name), **state}), _JSON_HEADERS)


def checked(model: str) -> str:
    """Return the name of a model; raises BadRequest where it cannot be one."""
    if not 1 <= len(model) <= MAX_NAME:
        raise BadRequest(f"a model's name has 1 to {MAX_NAME} characters, not {len(model)}")
    if not model.isascii():
        try:
            model.encode()
        except UnicodeEncodeError:
            raise BadRequest("the model's name is not UTF-8; percent-encode it so") from None
    return model


def check_count(items: Sequence[object], what: str, limits: Limits) -> None:
    """Raise where there are no items, or more than one request may have."""
    if not items:
        raise BadRequest(f"there are no {what}; send at least one")
    if len(items) > limits.max_items:
        raise Refused(
            413, f"{len(items)} {what} are more than {limits.max_items}; send fewer at a time"
        )


def _inline(query: str) -> bool:
    wanted = [each[7:] for each in query.split("&") if each.startswith("errors=")]
    if wanted and wanted[-1] not in ("raise", "inline"):
        raise BadRequest(f"errors={wanted[-1][:50]!r} in the query: it must be raise or inline")
    return wanted[-1:] == ["inline"]


def _json(body: bytes, limits: Limits) -> list[object]:
    items = _rows(loads(body, limits.max_nesting))
    if body.count(b'"instances"') > 1:
        check_single(body, "instances")
    return _unpack(items) if b'"b64"' in body else items  # type: ignore[return-value]  # a list


def _rows(value: object) -> list[object]:
    """Return the instances in the value of a body; raises BadRequest where there are none."""
    if type(value) is not dict:
        raise BadRequest(f'the body is a {type(value).__name__}; send {{"instances": […]}}')
    instances = value.get("instances")
    if type(instances) is list:
        return instances
    if getattr(instances, "ndim", 0):  # an array, which only msgpack can carry
        return list(instances)  # type: ignore[arg-type]  # its rows
    if "instances" in value:
        found = f"instances is a {type(instances).__name__}"
    else:
        found = f"the body has no instances but {list(value)[:5]!r:.100}"
    raise BadRequest(f'{found}; send a list of rows: {{"instances": […]}}')


def _unpack(value: object) -> object:
    """Return the value with bytes in the place of each ``{"b64": …}``."""
    if type(value) is list:
        return [_unpack(each) for each in value]
    if type(value) is not dict:
        return value
    if len(value) == 1 and type(value.get("b64")) is str:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest(f"a b64 field is not valid base64: {error}") from None
    return {key: _unpack(each) for key, each in value.items()}


def _predictions(outputs: Sequence[object]) -> Response:
    return Response(200, _written({"predictions": outputs}, outputs), _JSON_HEADERS)


def _outputs(outputs: Sequence[object]) -> Response:
    return Response(200, _written(outputs, outputs), _JSON_HEADERS)


def _packed(outputs: Sequence[object]) -> Response:
    plain = [_inline_error(e) if isinstance(e, ZStreamerError) else e for e in outputs]
    try:
        body = codec.encode({"predictions": plain}, "body")
    except BadRequest as error:  # it is not the request that was bad
        raise _bad_output(f"the model's output cannot be written as msgpack: {error}") from None
    return Response(200, body, _MSGPACK_HEADERS)


def _inline_error(error: ZStreamerError) -> dict[str, object]:
    return {"error": problem.document(error)}


def _other(value: object) -> object:
    return _inline_error(value) if isinstance(value, ZStreamerError) else json.plain(value)


def _written(value: object, outputs: Sequence[object]) -> bytes:
    try:
        return json.dumps(value, _other)
    except TypeError:
        for index, output in enumerate(outputs):
            try:
                json.dumps(output, _other)
            except TypeError as error:
                raise _bad_output(
                    f"the model's output for item {index} cannot be written as JSON: {error}; "
                    f"have the model return another type, or ask with Accept: {MSGPACK}",
                    index,
                ) from None
        raise


def _bad_output(words: str, index: int | None = None) -> PredictError:
    error = PredictError(words, "BadOutput")
    error.index = index
    return error
