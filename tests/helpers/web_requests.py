"""Requests to the HTTP interface without a server, and a cluster made of plain functions."""

import json

from zstreamer.errors import ZStreamerError
from zstreamer.web.api.interface import Interface
from zstreamer.web.api.steps import Look, Predict, Request, Response


def snapshot(**models):
    """A broker's snapshot; each model's keywords stand over those of one that is ready."""
    usual = {
        "ready": True,
        "trouble": "",
        "queued": 0,
        "running": 0,
        "served": 7,
        "rate": 1.5,
        "batch_size": 64,
        "inputs": None,
        "outputs": None,
        "workers": [{"host": "a", "pid": 1, "number": 0, "state": "warm"}],
    }
    known = {name.replace("_", "-"): {**usual, **each} for name, each in models.items()}
    return {"broker": {"release": "1"}, "models": known}


class Site:
    """An interface whose questions are answered here.

    model: a function from a list of items to their outputs; what it raises the call raises.
    seen: the questions to the model.
    """

    def __init__(self, model=lambda items: items, brokers=None, **settings):
        self.interface = Interface(**settings)
        self.model = model
        self.snapshot = snapshot(default={}) if brokers is None else brokers
        self.seen = []

    def begin(self, method, path, body=b"", query="", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        return self.interface.begin(Request(method, path, query, named.get, body))

    def ask(self, *request, **headers):
        """The response to a request: method, path, body; and headers, with underscores."""
        step = self.begin(*request, **headers)
        while not isinstance(step, Response):
            step = self.settle(step)
        return step

    def settle(self, step):
        try:
            if isinstance(step, Look):
                answer = self.snapshot
                if isinstance(answer, Exception):
                    raise answer
            else:
                assert isinstance(step, Predict) and step.items
                self.seen.append(step)
                answer = self.model(step.items)
        except ZStreamerError as error:
            return step.failed(error)
        return step.answered(answer)

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def post(self, path, body, **headers):
        return self.ask("POST", path, body, **headers)

    def predict(self, *instances, query="", **headers):
        body = {"instances": list(instances)}
        return self.post("/v1/models/default:predict", body, query=query, **headers)


def header(response, name):
    return dict(response.headers).get(name)


def answer(response):
    """The JSON of a response that must be good."""
    assert response.status == 200, response.body
    return json.loads(response.body)


def problem(response, status):
    """The problem document of a response that must have this status."""
    assert response.status == status, (response.status, response.body)
    assert header(response, "content-type") == "application/problem+json"
    found = json.loads(response.body)
    assert found["status"] == status
    assert found["type"].startswith("urn:zstreamer:problem:")
    assert found["detail"] == found["error"]
    assert found["title"]
    return found
