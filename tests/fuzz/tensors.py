"""Requests of the Open Inference Protocol: JSON, and binary data behind it.

An input is a byte that says what the model declares, two for the length of the JSON (zeros: no
header says it), and the body.
"""

from __future__ import annotations

import json

from zstreamer.web.api.interface import Interface
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.steps import Look, Predict, Request, Response

NUMBERS = {"name": "x", "datatype": "FP32", "shape": [3], "text": False}
PAIR = [
    {"name": "a", "datatype": "INT64", "shape": [], "text": False},
    {"name": "b", "datatype": "BYTES", "shape": [-1], "text": True},
]
DECLARED = (None, [NUMBERS], PAIR, [PAIR[1]])
"""Inputs of the models; their outputs are not declared."""

LIMITS = Limits(max_body=10_000, max_items=50)

SITE = Interface(LIMITS)

STEPS = 4


def write(declared: int, body: bytes, head: int = 0) -> bytes:
    """Return an input; head: length of the JSON where binary data follow."""
    return bytes([declared]) + head.to_bytes(2, "big") + body


def check(data: bytes) -> None:
    """Ask a model that returns its input; the answer is good, or says what is wrong."""
    if len(data) < 3:
        return
    name, head, body = f"m{data[0] % len(DECLARED)}", int.from_bytes(data[1:3], "big"), data[3:]
    headers = {"inference-header-content-length": str(head)} if head else {}
    step = SITE.begin(Request("POST", f"/v2/models/{name}/infer", "", headers.get, body))
    for _ in range(STEPS):
        if isinstance(step, Response):
            break
        if isinstance(step, Look):
            step = step.answered(_snapshot())
        else:
            assert isinstance(step, Predict)
            assert 1 <= len(step.items) <= LIMITS.max_items
            step = step.answered(step.items)
    assert isinstance(step, Response)
    _check_response(step)


def _check_response(response: Response) -> None:
    headers = dict(response.headers)
    assert response.status in (200, 400, 404, 413, 501), (response.status, response.body)
    end = headers.get("inference-header-content-length", str(len(response.body)))
    found = json.loads(response.body[: int(end)])
    if response.status != 200:
        assert found["detail"]
        return
    sizes = [each.get("parameters", {}).get("binary_data_size", 0) for each in found["outputs"]]
    assert int(end) + sum(sizes) == len(response.body)


def _snapshot() -> dict[str, object]:
    models = {f"m{n}": _model(inputs) for n, inputs in enumerate(DECLARED)}
    return {"broker": {"release": "1"}, "models": models}


def _model(inputs: object) -> dict[str, object]:
    worker = {"host": "a", "pid": 1, "number": 0, "state": "warm"}
    figures = {"ready": True, "trouble": "", "queued": 0, "running": 0, "served": 7, "rate": 1.5}
    return {**figures, "batch_size": 4, "inputs": inputs, "outputs": None, "workers": [worker]}
