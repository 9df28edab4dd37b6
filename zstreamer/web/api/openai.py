"""What the routes in OpenAI's form have in common: bodies, names of models, and errors.

Their errors are ``{"error": {"message": …, "type": …, "param": …, "code": …}}``, with the statuses
of all other routes.
"""

from __future__ import annotations

from collections.abc import Sequence

from zstreamer.errors import BadRequest
from zstreamer.web.api import bodies, problem
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.api.bodies import JSON
from zstreamer.web.api.json import dumps, loads
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.steps import Header, Request, Response

HEADERS = [("content-type", JSON)]


class BadField(BadRequest):
    """A field of a body has no usable value.

    Args:
        field: its name, which the error tells as ``param``.
        message: what is wrong with it, and how to fix it.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


def fields(request: Request, limits: Limits) -> dict[str, object]:
    """Return the object in a JSON body.

    Raises:
        BadRequest: there is none.
        Refused: the body is of another type, too large or compressed in an unknown way.
    """
    body = request.body
    if body[:1] != b"{" or len(body) > limits.max_body:
        body = bodies.plain(request, limits)
        if body[:1] != b"{" and bodies.named(request) not in ("", JSON, "text/json"):
            raise Refused(415, f"this route reads {JSON} alone", [("accept", JSON)])
    found = loads(body, limits.max_nesting)
    if type(found) is not dict:
        raise BadRequest(f"the body is a {type(found).__name__}; send an object")
    return found


def model_asked(body: dict[str, object], default: str) -> str:
    """Return the name in the field ``model``, which may be left out; raises `BadField`."""
    asked = body.get("model")
    if asked is None:
        return default
    if not isinstance(asked, str):
        raise BadField("model", f"it must be a name, not {type(asked).__name__}")
    return asked


def model_meant(asked: str, snapshot: snapshots.Snapshot) -> str:
    """Return the model to run: the one of that name, or the only one there is.

    Clients of OpenAI must name a model, and mostly name one of OpenAI's.

    Raises:
        ModelNotFound: there are several, and none has that name; it lists them.
    """
    served = snapshots.served(snapshot)
    if asked not in served and len(served) == 1:
        return next(iter(served))
    snapshots.named(snapshot, asked)
    return asked


def card(name: str) -> dict[str, object]:
    """Return what OpenAI's clients read of a model; when it was made is known to nobody here."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "zstreamer"}


def usage(tokens: int) -> dict[str, int]:
    """Return how many tokens a request had."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def chosen(
    body: dict[str, object], field: str, values: Sequence[object], default: object
) -> object:
    """Return a field that has one of a few values; raises `BadField`."""
    value = body.get(field)
    if value is None:
        return default
    if not any(value is each or (type(value) is str and value == each) for each in values):
        named = " or ".join(dumps(each).decode() for each in values)
        raise BadField(field, f"it must be {named}")
    return value


def whole(body: dict[str, object], field: str) -> int | None:
    """Return a field that is a whole number of at least 1, or None; raises `BadField`."""
    value = body.get(field)
    if value is None or (type(value) is int and value >= 1):
        return value
    raise BadField(field, "it must be a whole number of at least 1")


def failed(error: Exception) -> Response:
    """Return the response to a request that failed, as OpenAI's clients read it."""
    usual = problem.response(error)
    document = problem.document(error)
    name = str(document["type"]).removeprefix(problem.URN).replace("-", "_")
    words = {
        "message": document["detail"],
        "type": _type(usual.status),
        "param": "model" if name == "model_not_found" else getattr(error, "field", None),
        "code": name,
    }
    # Their clients try 429 and 5xx again by themselves, also where that is of no use.
    retry: Header = ("x-should-retry", "true" if document["retryable"] else "false")
    headers = [each for each in usual.headers if each[0] != "content-type"]
    return Response(usual.status, dumps({"error": words}), [*HEADERS, *headers, retry])


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
