"""The broker's page for people, and what operators may order."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests

from tests.helpers import chromium
from tests.helpers.cluster import Cluster, free_port
from tests.helpers.leaks import secret
from tests.helpers.waiting import until
from zstreamer import errors
from zstreamer.broker.core import BrokerCore
from zstreamer.broker.history import History
from zstreamer.broker.orders import Orders
from zstreamer.cli import main, operator
from zstreamer.config import BrokerConfig
from zstreamer.setting import ConfigError
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.pages import Request

TOKEN = secret("only operators know this")


@pytest.fixture(scope="module")
def served():
    """A cluster with one worker, and the URL of its broker's HTTP port."""
    port = free_port()
    with Cluster(http_port=port, operator_token=TOKEN) as cluster:
        cluster.worker("double", batch_size=4)
        cluster.wait_up()
        until(lambda: cluster.model().get("ready"), 30)
        cluster.url = f"http://127.0.0.1:{port}"
        yield cluster


def order(url, action, name, token=TOKEN, **headers):
    headers["Authorization"] = f"Bearer {token}"
    body = {"action": action, "name": name}
    return requests.post(f"{url}/operator", json=body, headers=headers, timeout=10)


def test_a_drained_worker_stays_connected_takes_nothing_and_resumes(served):
    worker = served.model()["workers"][0]
    name = f"{worker['host']}:{worker['pid']}"
    client = served.client(timeout=20)
    assert client.predict([1]) == [2]
    assert order(served.url, "drain", name).json() == {
        "name": name,
        "workers": 1,
        "drained": [name],
    }
    assert served.model()["workers"][0]["state"] == "drained"
    assert requests.get(f"{served.url}/readyz", timeout=5).status_code == 503
    waiting = client.submit([2])
    until(lambda: served.model()["queued"] == 1)
    assert order(served.url, "resume", name).json()["drained"] == []
    assert waiting.result(20) == [4]


def test_a_drained_broker_refuses_new_items_until_it_is_resumed(served):
    client = served.client(timeout=5)
    assert order(served.url, "drain", "broker").json()["draining"]
    with pytest.raises(Exception, match="shutting down"):
        client.predict([1])
    assert not order(served.url, "resume", "broker").json()["draining"]
    assert client.predict([1]) == [2]


def test_a_refused_client_is_told_stays_out_and_may_come_back_once_it_is_resumed(served):
    client = served.client(timeout=20)
    assert client.predict([1]) == [2]
    name = f"{socket.gethostname()}:{os.getpid()}"
    said = order(served.url, "refuse", name).json()
    assert said["name"] == name and said["refused"] >= 1
    for _ in range(2):  # its session has ended; the next one is refused
        with pytest.raises(errors.Unauthorized, match=f"operator .* refused '{name}'"):
            client.predict([1])
    page = requests.get(f"{served.url}/live", timeout=5).json()
    assert page["refused"] == [name] and page["counts"]["clients"] == 0
    assert order(served.url, "resume", name).status_code == 200
    with served.client(timeout=20) as again:
        assert again.predict([1]) == [2]


def test_a_refused_worker_leaves_its_items_to_others_and_may_come_back(served):
    with served.worker("double", batch_size=4):
        served.wait_warm(2)
        first = served.model()["workers"][0]
        name = f"{first['host']}:{first['pid']}"
        assert order(served.url, "refuse", name).json()["refused"] == 1
        served.wait_warm(1)
        assert served.client(timeout=20).predict(list(range(9))) == list(range(0, 18, 2))
        assert order(served.url, "resume", name).status_code == 200
        served.wait_warm(2)
    served.wait_warm(1)


@pytest.mark.parametrize(
    ("action", "name", "token", "status"),
    [
        ("drain", "nobody:1", TOKEN, 404),
        ("explode", "broker", TOKEN, 400),
        ("drain", None, TOKEN, 400),
        ("refuse", "nobody:1", TOKEN, 404),
        ("refuse", "broker", TOKEN, 400),
        ("refuse", "model default", "a guess", 403),
        ("drain", "broker", "a guess", 403),
    ],
)
def test_an_order_that_is_wrong_or_forbidden_changes_nothing(served, action, name, token, status):
    answer = order(served.url, action, name, token)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert not served.status()["broker"]["draining"]


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        ("10.0.0.9", {}, 403),
        ("127.0.0.1", {"Origin": "http://evil.example"}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "10.0.0.9"}, 403),
    ],
)
def test_without_a_token_only_programs_of_this_machine_give_orders(peer, headers, status):
    core, orders = BrokerCore(BrokerConfig(), 1, 0.0), Orders("")
    body = b'{"action": "drain", "name": "broker"}'
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(orders.take(Request(peer, headers, body)))
    )
    thread.start()
    until(lambda: orders.carry_out(core, 0.0) or answers)
    assert answers[0].status == status
    assert core.draining is (status == 200)


def test_drain_resume_and_refuse_are_commands(served, capsys):
    for action, left in (("drain", 1), ("resume", 0)):
        with pytest.raises(SystemExit) as end:
            main([action, "model default", "--broker-url", served.url, "--operator-token", TOKEN])
        assert end.value.code == 0
        assert f"{left} of 1 workers" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["refuse", "nobody:1", "--broker-url", served.url, "--operator-token", TOKEN])
    assert end.value.code == ExitCode.FAILED
    assert "no peer here is called nobody:1: its workers are " in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("openssl"), reason="it makes the certificate")
def test_orders_go_over_tls_and_only_to_a_server_that_is_trusted(tmp_path, monkeypatch, capsys):
    made = ("-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost", "-nodes")
    extra = ("-newkey", "rsa:2048", "-days", "2", "-addext", "subjectAltName=DNS:localhost")
    arguments = ("openssl", "req", "-x509", *made, *extra)
    subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    heard = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append((self.path, self.headers["Authorization"]))
            body = b'{"draining": true}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        proxy.socket = context.wrap_socket(proxy.socket, server_side=True)
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        url = f"https://localhost:{proxy.server_port}"
        arguments = ["drain", "broker", "--broker-url", url, "--operator-token", TOKEN]
        codes = []
        for trusted in ("", str(tmp_path / "cert.pem")):
            monkeypatch.setenv("SSL_CERT_FILE", trusted)
            with pytest.raises(SystemExit) as end:
                main(arguments)
            codes.append(end.value.code)
        proxy.shutdown()
        thread.join()
    assert (codes[0] != 0, codes[1]) == (True, 0)
    assert heard == [("/operator", f"Bearer {TOKEN}")]
    assert "clear text" not in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.5", "broker.example"])
def test_a_token_that_goes_over_a_network_in_clear_text_is_pointed_out(host, capsys):
    operator.point_out(f"http://{host}:7789", TOKEN)
    operator.point_out(f"http://{host}:7789", "")
    said = capsys.readouterr().err
    assert ("https://" in said) is (host in ("10.0.0.5", "broker.example"))
    assert said.count("clear text") <= 1
    assert TOKEN not in said


@pytest.mark.parametrize("url", ["10.0.0.5:7789", "ftp://host", "http://", "http://host:x"])
def test_what_is_no_url_of_a_broker_is_refused(url):
    with pytest.raises(ConfigError, match="give http://HOST:7789"):
        operator.point_out(url, "")


def test_the_page_has_no_inline_script_and_asks_nobody_else(served):
    page = requests.get(served.url, timeout=5)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert not re.search(r"<script(?![^>]*\bsrc=\"/)", page.text)
    assert "://" not in page.text
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert requests.get(served.url + path, timeout=5).status_code == 200


def test_the_page_has_the_last_minutes_and_only_what_is_new(served):
    def steps(since=0.0):
        return requests.get(f"{served.url}/live?since={since}", timeout=5).json()["steps"]

    found = until(lambda: steps()[1:])
    last = steps()[-1][0]
    assert all(step[0] > last for step in steps(last))
    assert len(found[0]) == 9


def test_the_history_is_bounded():
    core, history = BrokerCore(BrokerConfig(), 1, 0.0), History()
    for second in range(1000):
        history.look(core, float(second))
    assert len(history.steps) == 300
    assert history.since(995.0) == list(history.steps)[-4:]


@pytest.mark.skipif(not chromium.installed(), reason="needs Debian's package chromium")
def test_a_browser_shows_the_worker_and_drains_and_resumes_it(served):
    with chromium.Chromium() as page:
        page.open(served.url)
        until(lambda: page.run("document.querySelectorAll('#workers-table button').length") == 2)
        until(lambda: page.run("document.querySelectorAll('canvas').length") == 4)
        shown = page.run("document.body.innerText")
        assert "all models ready" in shown
        assert f":{served.model()['workers'][0]['pid']}" in shown

        page.run(f"document.getElementById('token').value = {json.dumps(TOKEN)}")
        page.run("document.querySelector('[aria-label^=drain]').click()")
        until(lambda: served.model()["workers"][0]["state"] == "drained")
        until(lambda: "is drained" in page.run("document.getElementById('held').innerText"))
        page.run("document.querySelector('#held [aria-label^=resume]').click()")
        until(lambda: served.model()["workers"][0]["state"] == "warm")
        until(lambda: not page.run("document.getElementById('held').innerText"))
    assert page.errors() == []
