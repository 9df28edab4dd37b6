"""Orders to load and unload that a server passes on to brokers, which are played here."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.helpers.cluster import free_port
from tests.helpers.leaks import secret
from zstreamer import errors
from zstreamer.setting import ConfigError
from zstreamer.web.operator import Operator

TOKEN = secret("operators")


@contextlib.contextmanager
def brokers(*answers):
    """HTTP ports that give these answers, and the orders that have come."""
    seen = []
    with contextlib.ExitStack() as stack:
        urls = []
        for status, said in answers:

            class Handler(BaseHTTPRequestHandler):
                outcome = status, json.dumps(said).encode()

                def do_POST(self):  # the base class calls it so
                    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                    seen.append((self.headers["Authorization"], body["action"], body["name"]))
                    self.send_response(self.outcome[0])
                    self.end_headers()
                    self.wfile.write(self.outcome[1])

                def log_message(self, *_):
                    pass

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            urls.append(f"http://127.0.0.1:{server.server_port}")
        yield urls, seen


def done(model, host, orders=1):
    return 200, {"models": [model], "orders": {host: orders}, "refused": []}


def test_all_brokers_are_told_and_those_that_have_no_host_do_not_matter():
    answers = done("bert@2", "a:1"), (404, {"error": "no host"}), done("bert@2", "b:1", 3)
    with brokers(*answers) as (urls, seen):
        said = Operator(urls, TOKEN).give("load", "bert")
    assert said.pop("refused") == said.pop("silent") == []
    assert said == {"models": ["bert@2"], "orders": {"a:1": 1, "b:1": 3}}
    assert seen == [(f"Bearer {TOKEN}", "load", "bert")] * 3


def test_a_broker_that_is_away_does_not_matter_where_another_is_told():
    with brokers(done("bert", "a:1")) as (urls, _):
        nobody = f"http://127.0.0.1:{free_port()}"
        said = Operator([nobody, *urls], TOKEN).give("load", "bert")
        assert said["models"] == ["bert"]
        assert "broker-url" in " ".join(said["silent"])  # type: ignore[arg-type]
        with pytest.raises(errors.BrokerUnreachable, match="broker-url"):
            Operator([nobody], TOKEN).give("load", "bert")


@pytest.mark.parametrize(
    ("answers", "error", "words"),
    [
        ([(404, {"error": "no model"})], errors.ModelNotFound, "no model"),
        ([(400, {"error": "no target"})], errors.BadRequest, "no target"),
        ([(404, {"error": "no"}), (400, {"error": "no target"})], errors.BadRequest, "no target"),
        ([(403, {"error": "token"})], errors.Unauthorized, "token"),
        ([(503, {"error": "busy"})], errors.NoWorker, "busy"),
        ([(500, {})], errors.NoWorker, "status 500"),
        ([(400, {"error": "give an action, drain"})], errors.NoWorker, "upgrade it"),
        ([(200, {})], errors.NoWorker, "status 200"),
        ([(200, [1])], errors.NoWorker, "status 200"),
    ],
)
def test_what_no_broker_does_is_the_error_that_says_most(answers, error, words):
    with brokers(*answers) as (urls, _), pytest.raises(error, match=words):
        Operator(urls, TOKEN).give("load", "bert")


def test_a_url_that_is_none_is_refused_at_the_start():
    with pytest.raises(ConfigError, match="no URL of a broker"):
        Operator(["10.0.0.5:7789"], TOKEN)


def test_a_token_that_goes_in_clear_text_is_pointed_out(caplog):
    Operator(["http://127.0.0.1:7789", "https://broker.example"], TOKEN)
    assert not caplog.text
    Operator(["http://10.0.0.5:7789"], TOKEN)
    assert "clear text to http://10.0.0.5:7789" in caplog.text
    assert TOKEN not in caplog.text


def test_why_other_hosts_refuse_is_passed_on():
    status, words = done("bert", "a:1")
    one = (status, {**words, "refused": ["num is 'many'"]})
    with brokers(one, one) as (urls, _):
        assert Operator(urls, TOKEN).give("load", "bert")["refused"] == ["num is 'many'"]
