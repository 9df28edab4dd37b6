"""``POST /v1/embeddings``, as OpenAI has it: a vector for each text.

    {"model": "m", "input": ["one", "two"]}
        ──> {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": […]}, …]}

``input`` is a text, a list of texts, the ids of one text's tokens, or a list of such lists. Each
of them is an item. A model answers it with its vector, or with ``{"embedding": …, "tokens": 7}``,
which tells how many tokens the text had. One that declares its input as ``input`` and its output
as ``embedding`` is asked with ``{"input": …, "usage": true}``, to which it answers so.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from zstreamer.errors import BadRequest
from zstreamer.web.api import openai, options
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.api.datatypes import numpy
from zstreamer.web.api.json import dumps
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.openai import BadField
from zstreamer.web.api.signatures import Signatures
from zstreamer.web.api.steps import Request, Response, Step
from zstreamer.web.api.v1 import check_count

if TYPE_CHECKING:
    import numpy as np

    from zstreamer.web.api.exchange import Exchange

INPUT, USAGE, EMBEDDING, TOKENS = "input", "usage", "embedding", "tokens"


class Wanted(NamedTuple):
    """How the vectors are to be written.

    Args:
        dimensions: cut them to so many numbers, and to length 1 again; None for all.
        packed: as base64 of little-endian float32, in place of a list of numbers.
    """

    dimensions: int | None
    packed: bool


def embed(
    exchange: Exchange, request: Request, default: str, limits: Limits, signatures: Signatures
) -> Step:
    """Have a model embed the texts of a request."""
    body = openai.fields(request, limits)
    asked = openai.model_asked(body, default)
    items = inputs(body)
    check_count(items, "inputs", limits)
    packed = openai.chosen(body, "encoding_format", ("float", "base64"), "float") == "base64"
    wanted = Wanted(openai.whole(body, "dimensions"), packed)
    chosen = options.of(request, limits)

    def then(snapshot: snapshots.Snapshot) -> Step:
        name = openai.model_meant(asked, snapshot)
        signature = signatures.of(name, snapshots.named(snapshot, name))
        told = signature is not None and _tells_usage(*signature)
        given = [{INPUT: each, USAGE: True} if told else each for each in items]

        def answer(outputs: Sequence[object]) -> Response:
            return written(name, items, outputs, wanted)

        return exchange.predict(given, name, chosen, answer)

    return exchange.look(then)


def inputs(body: Mapping[str, object]) -> list[object]:
    """Return the items of a request; raises `BadField` where there are none."""
    found = body.get(INPUT)
    if isinstance(found, str):
        return [found]
    if not isinstance(found, list) or not found:
        raise BadField(INPUT, "send a text, a list of texts, or token ids")
    if set(map(type, found)) == {int}:
        return [found]
    kinds = {str if type(each) is str else int if _are_ids(each) else None for each in found}
    if len(kinds) > 1 or None in kinds:
        raise BadField(INPUT, "its elements must all be texts, token ids, or lists of token ids")
    return found


def written(
    name: str, items: Sequence[object], outputs: Sequence[object], wanted: Wanted
) -> Response:
    """Return the response that has the vectors of all items.

    Raises:
        BadRequest: the model's outputs are no vectors, or shorter than is wanted.
    """
    data: list[dict[str, object]] = []
    tokens = 0
    for index, (item, output) in enumerate(zip(items, outputs, strict=True)):
        count, value = _parts(item, output)
        tokens += count
        vector = _cut(_vector(name, value, index), wanted.dimensions)
        shown = (
            base64.b64encode(vector.astype("<f4").tobytes()).decode() if wanted.packed else vector
        )
        data.append({"object": EMBEDDING, "index": index, EMBEDDING: shown})
    answer = {"object": "list", "data": data, "model": name, USAGE: openai.usage(tokens)}
    return Response(200, dumps(answer), openai.HEADERS)


def _are_ids(value: object) -> bool:
    return type(value) is list and set(map(type, value)) == {int}


def _tells_usage(inputs: object, outputs: object) -> bool:
    return _names(inputs) == [INPUT] and _names(outputs) == [EMBEDDING]


def _names(declared: object) -> list[str]:
    return [each.name for each in declared] if isinstance(declared, Sequence) else []


def _parts(item: object, output: object) -> tuple[int, object]:
    """Return tokens and vector of an output; token ids of the caller's can be counted here."""
    tokens = len(item) if isinstance(item, list) else 0
    if not isinstance(output, Mapping) or EMBEDDING not in output:
        return tokens, output
    told = output.get(TOKENS)
    return int(told) if isinstance(told, int) else tokens, output[EMBEDDING]


def _vector(name: str, value: object, index: int) -> np.ndarray:
    np = numpy()
    try:
        vector = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        vector = np.empty(())
    if vector.ndim != 1 or not vector.size:
        error = BadRequest(
            f"model {name!r} gives no embeddings: its output for input {index} is "
            f"{type(value).__name__}, not a vector; POST to /v1/models/{name}:predict"
        )
        error.index = index
        raise error
    return vector  # type: ignore[no-any-return]  # it is made just above


def _cut(vector: np.ndarray, dimensions: int | None) -> np.ndarray:
    if dimensions is None or dimensions == len(vector):
        return vector
    if dimensions > len(vector):
        raise BadField(
            "dimensions", f"the model's vectors have {len(vector)} numbers; ask for less"
        )
    np = numpy()
    cut = vector[:dimensions]
    length = float(np.linalg.norm(cut))
    return (cut / np.float32(length)) if length else cut
