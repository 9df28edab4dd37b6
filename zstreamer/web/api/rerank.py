"""``POST /v1/rerank``, as Jina and Cohere have it: documents in the order in which they fit.

    {"model": "m", "query": "who?", "documents": ["one", "two"], "top_n": 1}
        ──> {"model": "m", "results": [{"index": 1, "relevance_score": 0.98}]}

Each document is an item, ``[query, document]``, to which the model answers with a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from zstreamer.errors import BadRequest
from zstreamer.web.api import openai, options
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.api.json import dumps
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.openai import BadField
from zstreamer.web.api.steps import Request, Response, Step
from zstreamer.web.api.v1 import check_count

if TYPE_CHECKING:
    from zstreamer.web.api.exchange import Exchange


def rerank(exchange: Exchange, request: Request, default: str, limits: Limits) -> Step:
    """Have a model score the documents of a request."""
    body = openai.fields(request, limits)
    asked = openai.model_asked(body, default)
    query = body.get("query")
    if not isinstance(query, str):
        raise BadField("query", "send a text")
    texts = documents(body)
    check_count(texts, "documents", limits)
    top = openai.whole(body, "top_n")
    shown = openai.chosen(body, "return_documents", (True, False), default=False) is True
    chosen = options.of(request, limits)

    def then(snapshot: snapshots.Snapshot) -> Step:
        name = openai.model_meant(asked, snapshot)

        def answer(outputs: Sequence[object]) -> Response:
            scores = [_score(name, each, index) for index, each in enumerate(outputs)]
            order = sorted(range(len(scores)), key=lambda index: -scores[index])[:top]
            results = [_result(each, scores[each], texts if shown else ()) for each in order]
            return Response(200, dumps({"model": name, "results": results}), openai.HEADERS)

        return exchange.predict([[query, each] for each in texts], name, chosen, answer)

    return exchange.look(then)


def documents(body: Mapping[str, object]) -> list[str]:
    """Return the texts of a request's documents; raises `BadField` where there are none."""
    found = body.get("documents")
    if not isinstance(found, list) or not found:
        raise BadField("documents", 'send a list of texts, or of {"text": …}')
    texts: list[str] = []
    for index, each in enumerate(found):
        text = each.get("text") if isinstance(each, dict) else each
        if not isinstance(text, str):
            raise BadField("documents", f'number {index} is no text, and no {{"text": …}}')
        texts.append(text)
    return texts


def _result(index: int, score: float, texts: Sequence[str]) -> dict[str, object]:
    result: dict[str, object] = {"index": index, "relevance_score": score}
    return {**result, "document": {"text": texts[index]}} if texts else result


def _score(name: str, output: object, index: int) -> float:
    """Return an output as a number: a plain one, or an array that has but one."""
    if getattr(output, "size", 0) == 1 and hasattr(output, "item"):
        output = output.item()
    if isinstance(output, int | float):
        return float(output)
    error = BadRequest(
        f"model {name!r} gives no scores: its output for document {index} is "
        f"{type(output).__name__}, not a number; POST to /v1/models/{name}:predict"
    )
    error.index = index
    raise error
