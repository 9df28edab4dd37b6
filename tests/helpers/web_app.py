"""A Flask app that embeds a client, made when the module is imported; served by tests."""

import os

from flask import Flask, jsonify, request

from zstreamer import Client

client = Client(os.environ["BROKER"], model="double")
app = Flask(__name__)

if "CALL_AT_IMPORT" in os.environ:
    # A program that was used already before its server forks it and gevent patches it.
    assert client.predict([1]) == [2]


@app.get("/")
def double():
    [answer] = client.predict([int(request.args["n"])])
    return jsonify(answer=answer, pid=os.getpid())
