"""An asyncio web server in front of a cluster: FastAPI and `zstreamer.aio.Client`.

    zstreamer broker
    zstreamer worker examples.bert_model:ManagedBertModel
    uvicorn examples.fastapi_example:app --port 8000
    curl --json '{"s": "Happy birthday to [MASK]."}' http://127.0.0.1:8000/stream   # ["you"]
    curl "http://127.0.0.1:8000/stream?s=Happy%20birthday%20to%20%5BMASK%5D."

``ZSTREAMER_BROKER`` says where the broker is (tcp://127.0.0.1:7787) and ``ZSTREAMER_MODEL`` which
of its models to ask (default).
"""

from __future__ import annotations

import os

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from examples.problem import problem
from zstreamer import aio, errors

app = FastAPI()
client = aio.Client(
    os.environ.get("ZSTREAMER_BROKER", "tcp://127.0.0.1:7787"),
    model=os.environ.get("ZSTREAMER_MODEL", "default"),
)


class Question(BaseModel):
    """The body of a request: one sentence or several."""

    s: str | list[str]


@app.exception_handler(errors.ZStreamerError)
async def on_error(_: Request, error: errors.ZStreamerError) -> JSONResponse:
    """Answer with the status that fits the error."""
    body, status, headers = problem(error)
    return JSONResponse(body, status, headers)


@app.post("/stream")
async def stream(question: Question) -> list[object]:
    """Answer in a batch with the other callers."""
    return await client.predict([question.s] if isinstance(question.s, str) else question.s)


@app.get("/stream")
async def stream_one(s: str) -> list[object]:
    """Answer one sentence from the address bar."""
    return await client.predict([s])


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that this process answers."""
    return {"status": "ok"}
