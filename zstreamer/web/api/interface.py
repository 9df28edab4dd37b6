"""What HTTP requests mean: the one interface that all servers serve. Pure: no sockets, no server.

    POST /v1/models/{model}:predict     TensorFlow Serving, KServe v1; JSON, msgpack, files
    GET  /v1/models, /v1/models/{model} also as OpenAI's clients read them
    POST /v1/embeddings                 OpenAI
    POST /v1/rerank                     Jina, Cohere
    POST /v2/models/{model}/infer       Open Inference Protocol; JSON and binary tensors
    …/models/{model}/versions/{version}…    all of these, for one version of a model
    POST /v2/repository/…                its extension that loads and unloads models
    GET  /v2, /v2/health/live, /v2/health/ready, /v2/models/{model}, /v2/models/{model}/ready
    POST /stream                        form fields s, as examples of older libraries send them
    GET  /, /openapi.json, /healthz, /readyz, /metrics

A server carries requests here and questions to a client (here a threaded or green one):

    step = interface.begin(request)
    while not isinstance(step, Response):
        try:
            if isinstance(step, Look):
                answer = directory.get(step.oldest)  # after step.wait seconds
            elif isinstance(step, Order):
                answer = operator.give(step.action, step.name)
            else:
                answer = client.predict(step.items, model=step.model, timeout=step.timeout, …)
        except ZStreamerError as error:
            step = step.failed(error)
        except BaseException:  # the caller hung up, or a bug of the server's
            step.failed(Cancelled("the caller disconnected"))
            raise
        else:
            step = step.answered(answer)

Each step is ended by one call of `answered` or `failed`, also where nobody waits for the response
any more: that is how the metrics know what is in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TypeAlias
from urllib.parse import unquote_plus

from prometheus_client import CollectorRegistry

from zstreamer.keys.ring import MAX_TENANT, is_tenant, tenant_of
from zstreamer.web.api import embeddings, openai, page, problem, rerank, v1, v2, versions
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.api.bodies import JSON
from zstreamer.web.api.exchange import Exchange
from zstreamer.web.api.guard import Guard
from zstreamer.web.api.json import dumps
from zstreamer.web.api.limits import DEFAULT, Limits
from zstreamer.web.api.metrics import CONTENT_TYPE, Metrics
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.repository import ROOT, Repository
from zstreamer.web.api.signatures import Signatures
from zstreamer.web.api.steps import Request, Response, Step

Page: TypeAlias = "Callable[[Exchange, Request], Step]"

_OF_OPENAI = ("/v1/embeddings", "/v1/rerank")
_POSTS = ("/stream", *_OF_OPENAI)
_V1 = "/v1/models/"
_V2 = "/v2/models/"
_HEADERS = [("content-type", JSON)]

PROBE = 0.3
"""Seconds that what a probe is told may be old."""


class Interface:
    """Says what to do with each request, and writes the responses.

    One serves a whole process, all of its threads, greenlets and tasks; it may be made before
    a fork.

    Args:
        limits: what one request may ask for.
        default_model: the model that ``/stream`` calls and the page suggests, and those in OpenAI's
            form where they name none. ``/readyz`` and
            ``/v2/health/ready`` ask for a warm worker of it, or of any model where the broker
            knows none of this name; ``/readyz?model=NAME`` asks for one.
        guard: whose requests are answered; None for everybody's.
        tenant_header: the header that says to whom a request counts, for callers without a token
            or with one of the tenant `"*"`; empty for none.
        operator_token: what those must send who load and unload models; empty where nobody may.
    """

    def __init__(
        self,
        limits: Limits = DEFAULT,
        default_model: str = "default",
        guard: Guard | None = None,
        tenant_header: str = "",
        operator_token: str = "",
    ) -> None:
        self.limits = limits
        self._guard = guard
        self._repository = Repository(limits, operator_token)
        self._tenant_header = tenant_header.lower()
        self.default_model = v1.checked(default_model)
        self._metrics = Metrics()
        self._signatures = Signatures()
        self._pages: dict[str, Page] = {
            "/stream": self._stream,
            "/v1/embeddings": self._embeddings,
            "/v1/rerank": self._rerank,
            "/v1/models": lambda exchange, _: exchange.look(v1.listed),
            "/v2": lambda *_: v2.server(),
            "/v2/health/live": lambda *_: _json({"live": True}),
            "/v2/health/ready": self._ready,
            "/healthz": lambda *_: _json({"ok": True}),
            "/readyz": self._ready,
            "/metrics": self._text,
            "/openapi.json": lambda *_: page.openapi(),
            "/": lambda *_: page.response(),
        }

    @property
    def registry(self) -> CollectorRegistry:
        """Where collectors are registered whose series `/metrics` is to show too."""
        return self._metrics.registry

    def begin(self, request: Request) -> Step:
        """Return the first step of a request. Never raises.

        A response's ``headers`` may be shared with other responses: copy them to add some. The
        response to HEAD is `Response.bare` already.
        """
        return Exchange(self._metrics, request).first(self._route, request)

    def begin_open(self, request: Request, pages: Collection[str]) -> Step:
        """The same for a port that has some pages alone, and answers everybody."""
        if request.path not in pages:
            return self.refuse(404, "this port has these pages: " + ", ".join(sorted(pages)))
        return Exchange(self._metrics, request).first(self._route_open, request)

    def refuse(self, why: int | Exception, detail: str = "") -> Response:
        """Return the response to a request that a server refuses by itself. Never raises.

        Args:
            why: a status: 400 for a broken body, 408 for a slow one, 411, 413 for one beyond
                ``limits.max_body``, 431, 500 for a bug of the server's …; or an error.
            detail: what is wrong and how to fix it; a text that fits the status where empty.
        """
        response = problem.response(Refused(why, detail) if isinstance(why, int) else why)
        self._metrics.refused(response.status)
        return response

    def _route(self, exchange: Exchange, request: Request) -> Step:
        if request.path in _OF_OPENAI:
            exchange.failure = openai.failed
        caller = None
        if self._guard is not None and not self._repository.lets_in(request):
            caller = self._guard.check(request)
        said = self._tenant_in(request) if self._tenant_header else ""
        tenant = tenant_of(said, caller.tenant if caller is not None else None)
        if tenant is None:
            words = f"{self._tenant_header} names a tenant, and the token does not let it: make "
            raise Refused(403, words + 'it with --tenant "*", or leave the header out')
        exchange.tenant = tenant
        return self._route_open(exchange, request)

    def _tenant_in(self, request: Request) -> str:
        name = request.header(self._tenant_header) or ""
        if not is_tenant(name):
            words = f"{self._tenant_header} must be printable text of up to {MAX_TENANT} characters"
            raise Refused(400, words)
        return name

    def _route_open(self, exchange: Exchange, request: Request) -> Step:
        path = request.path
        if path.startswith(_V1):
            return self._v1(exchange, request, path[len(_V1) :])
        if path.startswith(_V2):
            return self._v2(exchange, request, path[len(_V2) :])
        if path.startswith(ROOT):
            _allow(request, "POST")
            return self._repository.begin(exchange, request)
        step = self._pages.get(path)
        if step is None:
            bare = path.rstrip("/")
            known = f"it is {bare}" if bare in self._pages else "/openapi.json lists the pages"
            raise Refused(404, f"no page {path[:100]!r}; {known}")
        exchange.route = path.strip("/").replace("/", "_") or "page"
        _allow(request, "POST" if path in _POSTS else "GET")
        return step(exchange, request)

    def _v1(self, exchange: Exchange, request: Request, rest: str) -> Step:
        if rest.endswith(":predict"):
            _allow(request, "POST")
            return v1.predict(exchange, request, versions.split(rest[:-8]), self.limits)
        exchange.route = "v1_model"
        runs = f"{_V1}{_named(rest)}:predict"
        if rest.rstrip("/").endswith(":predict"):
            raise Refused(404, f"no page {request.path[:100]!r}; POST to {runs[:100]}")
        _allow(request, "GET", runs=runs)
        asked = versions.split(rest)
        v1.checked(asked.model)
        return versions.find(exchange, asked, v1.one)

    def _v2(self, exchange: Exchange, request: Request, rest: str) -> Step:
        asked, action = _split(rest)
        if action == "infer":
            _allow(request, "POST")
            return v2.infer(exchange, request, asked, self.limits, self._signatures)
        exchange.route = "v2_model"
        runs = f"{_V2}{_named(asked.path)}/infer"
        if rest.rstrip("/").endswith("/infer"):
            raise Refused(404, f"no page {request.path[:100]!r}; POST to {runs[:100]}")
        _allow(request, "GET", runs=runs)
        v1.checked(asked.model)
        if action == "ready":
            return versions.find(exchange, asked, partial(v2.ready, asked))
        then = partial(v2.metadata, asked, signatures=self._signatures)
        return versions.find(exchange, asked, then)

    def _stream(self, exchange: Exchange, request: Request) -> Step:
        return v1.stream(exchange, request, self.default_model, self.limits)

    def _embeddings(self, exchange: Exchange, request: Request) -> Step:
        return embeddings.embed(
            exchange, request, self.default_model, self.limits, self._signatures
        )

    def _rerank(self, exchange: Exchange, request: Request) -> Step:
        return rerank.rerank(exchange, request, self.default_model, self.limits)

    def _ready(self, exchange: Exchange, request: Request) -> Step:
        asked = [each[6:] for each in request.query.split("&") if each.startswith("model=")]
        wanted = v1.checked(unquote_plus(asked[-1])) if asked else self.default_model

        def then(snapshot: snapshots.Snapshot) -> Step:
            if asked:
                snapshots.named(snapshot, wanted)
            ready, words = snapshots.readiness(snapshot, wanted)
            return _json(words, 200 if ready else 503)

        return exchange.look(then, PROBE)

    def _text(self, *_: object) -> Step:
        return Response(200, self._metrics.text(), [("content-type", CONTENT_TYPE)])


def _allow(request: Request, *methods: str, runs: str = "") -> None:
    """Raise `Refused` for any other method; where GET is allowed, so is HEAD.

    runs: the path that a POST here probably meant.
    """
    method = "GET" if request.method == "HEAD" else request.method
    if method not in methods:
        named = ", ".join((*methods, "HEAD") if "GET" in methods else methods)
        detail = f"{request.method[:20]!r} is not for {request.path[:100]!r}; use {named}"
        if runs and method == "POST":
            detail += f"; to run the model, POST to {runs[:100]}"
        raise Refused(405, detail, [("allow", named)])


def _named(rest: str) -> str:
    """Return the model that is meant by what follows the prefix of a path that is no page."""
    rest = rest.rstrip("/")
    for ending in (":predict", "/predict", "/infer"):
        rest = rest.removesuffix(ending)
    return rest.rstrip("/")


def _json(words: dict[str, object], status: int = 200) -> Response:
    return Response(status, dumps(words), _HEADERS)


def _split(rest: str) -> tuple[versions.Named, str]:
    """Return model and action of ``{model}[/versions/{version}][/infer|/ready]``."""
    name, _, action = rest.rpartition("/")
    if action not in ("infer", "ready") or not name:
        name, action = rest, ""
    return versions.split(name), action
