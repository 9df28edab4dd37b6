"""The OpenAPI 3.1 document of the interface, served at ``/openapi.json``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

import zstreamer
from zstreamer.web.api import problem
from zstreamer.web.api.bodies import FORM, JSON, MSGPACK
from zstreamer.web.api.json import dumps
from zstreamer.web.api.steps import Response

Object: TypeAlias = "Mapping[str, object]"


@lru_cache
def response() -> Response:
    """Return the document as JSON."""
    return Response(200, dumps(document()), [("content-type", JSON)])


def document() -> Object:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "zstreamer",
            "version": zstreamer.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Models served in batches: the REST convention of TensorFlow Serving "
            "and KServe v1, and the Open Inference Protocol (v2) with binary tensor data. "
            "Errors are problem documents of RFC 9457.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "v1"}, {"name": "v2"}, {"name": "service"}],
        "paths": {**_v1(), **_v2(), **_service()},
        "components": {
            "schemas": _SCHEMAS,
            "parameters": _PARAMETERS,
            "responses": {"Problem": _PROBLEM},
        },
    }


def _operation(
    tag: str, id: str, summary: str, answer: Object, *parameters: str, body: Object | None = None
) -> Object:
    """An operation with one good answer; whatever else it answers is a problem."""
    found: dict[str, object] = {
        "tags": [tag],
        "operationId": id,
        "summary": summary,
        "responses": {
            "200": {"description": "Done", "content": answer},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if parameters:
        found["parameters"] = [{"$ref": f"#/components/parameters/{each}"} for each in parameters]
    if body is not None:
        found["requestBody"] = {"required": True, "content": body}
    return found


def _content(schema: str, *types: str) -> Object:
    return {each: {"schema": {"$ref": f"#/components/schemas/{schema}"}} for each in types}


def _v1() -> Object:
    call = ("Timeout", "Priority")
    predict = _operation(
        "v1",
        "predict",
        "Run a model; a form is answered with the list of outputs alone",
        {
            JSON: {"schema": {"oneOf": [{"$ref": "#/components/schemas/Predictions"}, _OUTPUTS]}},
            **_content("Predictions", MSGPACK),
        },
        *("Model", "Errors", *call),
        body={**_content("Instances", JSON, MSGPACK), **_content("Form", FORM)},
    )
    stream = _operation(
        "v1",
        "stream",
        "Run the default model on the fields s of a form",
        {JSON: {"schema": _OUTPUTS}},
        *call,
        body=_content("Form", FORM),
    )
    listed = _operation("v1", "models", "All models", _content("Models", JSON))
    one = _operation("v1", "model", "One model", _content("Model", JSON), "Model")
    return {
        "/v1/models/{model}:predict": {"post": predict},
        "/v1/models": {"get": listed},
        "/v1/models/{model}": {"get": one},
        "/stream": {"post": stream},
    }


def _v2() -> Object:
    metadata = _operation("v2", "metadata", "A model's tensors", _content("Any", JSON), "Model")
    ready = _operation("v2", "modelReady", "Is a model ready?", _content("Any", JSON), "Model")
    infer = _operation(
        "v2",
        "infer",
        "Run a model on rows of tensors",
        {
            **_content("InferResponse", JSON),
            "application/octet-stream": {},
        },
        *("Model", "HeaderLength", "Timeout", "Priority"),
        body={**_content("InferRequest", JSON), "application/octet-stream": {}},
    )
    model = "/v2/models/{model}"
    return {
        "/v2": {"get": _plain("v2", "server", "What this server is")},
        "/v2/health/live": {"get": _plain("v2", "live", "Does this process serve?")},
        "/v2/health/ready": {"get": _plain("v2", "ready", "Is there a warm worker?")},
        model: {"get": metadata},
        f"{model}/ready": {"get": ready},
        f"{model}/infer": {"post": infer},
    }


def _plain(tag: str, id: str, summary: str) -> Object:
    return _operation(tag, id, summary, _content("Any", JSON))


def _service() -> Object:
    text: Object = {"schema": {"type": "string"}}
    metrics = _operation("service", "metrics", "For Prometheus", {"text/plain": text})
    page = _operation("service", "page", "A page for people", {"text/html": text})
    ready = _operation(
        "service", "readyz", "Is there a warm worker?", _content("Any", JSON), "ReadyModel"
    )
    return {
        "/healthz": {"get": _plain("service", "healthz", "Does this process serve?")},
        "/readyz": {"get": ready},
        "/metrics": {"get": metrics},
        "/openapi.json": {"get": _plain("service", "openapi", "This document")},
        "/": {"get": page},
    }


_OUTPUTS: Object = {"type": "array", "description": "An output for each item, in order"}

_PROBLEM: Object = {
    "description": "What is wrong, and the mend",
    "headers": {
        "Retry-After": {
            "description": "Seconds, with 429 and 503",
            "schema": {"type": "integer"},
        }
    },
    "content": _content("Problem", problem.CONTENT_TYPE),
}


def _header(name: str, schema: Object, description: str) -> Object:
    return {"name": name, "in": "header", "schema": schema, "description": description}


_PARAMETERS: Object = {
    "Model": {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    "ReadyModel": {
        "name": "model",
        "in": "query",
        "schema": {"type": "string"},
        "description": "which one must be ready; the default model where it is not given",
    },
    "Errors": {
        "name": "errors",
        "in": "query",
        "schema": {"enum": ["raise", "inline"], "default": "raise"},
        "description": "inline: an item that failed is answered with its problem, in its place",
    },
    "Timeout": _header(
        "X-Request-Timeout", {"type": "number", "exclusiveMinimum": 0}, "seconds for the call"
    ),
    "Priority": _header("X-Priority", {"type": "integer", "default": 0}, "higher goes first"),
    "HeaderLength": _header(
        "Inference-Header-Content-Length",
        {"type": "integer", "minimum": 1},
        "bytes of the JSON that comes before binary tensor data",
    ),
}


def _object(required: str, **properties: Object) -> Object:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(of: Object, least: int = 0) -> Object:
    return {"type": "array", "items": of, "minItems": least}


_TEXT: Object = {"type": "string"}
_WHOLE: Object = {"type": "integer"}
_ANY: Object = {}
_TENSOR: Object = _object(
    "name shape datatype",
    name=_TEXT,
    shape={**_list(_WHOLE, 1), "description": "the number of rows first"},
    datatype=_TEXT,
    data={"type": "array", "description": "flat, or nested as the shape says"},
    parameters={"type": "object"},
)

_SCHEMAS: Object = {
    "Any": {"type": "object"},
    "Instances": _object("instances", instances=_list(_ANY, 1)),
    "Predictions": _object("predictions", predictions=_OUTPUTS),
    "Form": _object("s", s=_list(_TEXT, 1)),
    "Models": _object(
        "models states", models=_list(_TEXT), states=_list({"$ref": "#/components/schemas/Model"})
    ),
    "Model": _object("name ready", name=_TEXT, ready={"type": "boolean"}, trouble=_TEXT),
    "InferRequest": _object(
        "inputs",
        id=_TEXT,
        inputs=_list(_TENSOR, 1),
        outputs=_list(_object("name", name=_TEXT, parameters={"type": "object"})),
        parameters={"type": "object"},
    ),
    "InferResponse": _object(
        "model_name outputs",
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        outputs=_list(_TENSOR),
    ),
    "Problem": _object(
        "type title status detail retryable",
        type={"type": "string", "format": "uri"},
        title=_TEXT,
        status=_WHOLE,
        detail={"type": "string", "description": "what is wrong, and the mend"},
        error={"type": "string", "description": "the same, where other servers' clients look"},
        retryable={"type": "boolean", "description": "whether the same call may succeed again"},
        index={"type": "integer", "description": "which item failed"},
        retry_after={"type": "number", "description": "seconds"},
        models={**_list(_TEXT), "description": "those that are served"},
        exception={"type": "string", "description": "what kind the model raised"},
    ),
}
