"""A WSGI app that calls the model `default` for each request."""

import os

from zstreamer import Client

client = Client(os.environ["ADDRESS"])


def app(environ, start_response):
    client.predict([1])
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def two_pieces(environ, start_response):
    """Answers in two writes."""
    start_response("200 OK", [("Content-Length", "4")])
    yield b"on"
    yield b"e\n"
