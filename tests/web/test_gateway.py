"""`zstreamer gateway` as a program, and its connections, byte by byte."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from tests.helpers.cluster import ROOT, Cluster, free_port
from tests.helpers.servers import Server, post, seconds
from tests.helpers.waiting import all_gone, descendants, until
from tests.web import hostile
from zstreamer.config import GatewayConfig
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import Process

LIMIT = 1_000_000
SLOW = 0.5
PREDICT = "/v1/models/echo:predict"
BODY = b'{"instances": ["a"]}'


def gateway(address, *options, **settings):
    """A gateway in front of the broker at this address."""
    command = ("--broker", address, "--connect-timeout", "20", "--log-level", "warning")
    return Server("zstreamer", "gateway", *command, *options, **settings)


@pytest.fixture(scope="module")
def door(shared):
    options = ("--max-body", LIMIT, "--read-timeout", SLOW, "--keep-alive", "3", "--model", "echo")
    with gateway(shared.address, *options, "--processes", "2") as server:
        shared.wait_warm(1, "echo")
        yield server


def lasting(server):
    """A client whose connection is kept."""
    return httpx.Client(base_url=server.url, timeout=30)


# ------------------------------------------------------------------ clients of other makers


def infer(server, binary, *values):
    tensor = triton.InferInput("input", [len(values)], "BYTES")
    tensor.set_data_from_numpy(np.array(values, object), binary_data=binary)
    wanted = triton.InferRequestedOutput("output", binary_data=binary)
    with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{server.port}")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("echo")
        assert client.get_model_metadata("echo")["inputs"][0]["datatype"] == "BYTES"
        found = client.infer("echo", [tensor], outputs=[wanted]).as_numpy("output").tolist()
        return [each.decode() if binary else each for each in found]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_tritons_own_client_gets_its_answers(door, binary):
    assert infer(door, binary, "one", "two") == ["one", "two"]


def test_tritons_own_client_gets_the_error(door):
    with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{door.port}")) as client:
        tensor = triton.InferInput("input", [1], "BYTES")
        tensor.set_data_from_numpy(np.array(["a"], object))
        with pytest.raises(triton.InferenceServerException, match="nobody"):
            client.infer("nobody", [tensor])


# ------------------------------------------------------------------ one connection


def test_a_connection_serves_one_request_after_the_other(door):
    with door.connect() as raw:
        for number in range(5):
            raw.post(b'{"instances": [%d]}' % number, PREDICT)
            assert raw.read().endswith(b"[%d]}" % number)


def test_requests_that_do_not_wait_are_answered_in_their_order(door):
    number = 50
    requests = [post(b'{"instances": [%d]}' % n, PREDICT) for n in range(number)]
    requests[7] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"  # answered at once, yet in its turn
    requests[-1] = post(b'{"instances": ["end"]}', PREDICT, "Connection: close")
    with door.connect() as raw:
        raw.send(b"".join(requests))
        answers = raw.read(until_end=True).split(b"HTTP/1.1 200 OK\r\n")[1:]
    bodies = [each.partition(b"\r\n\r\n")[2] for each in answers]
    assert bodies[7] == b'{"ok":true}'
    assert bodies[-1] == b'{"predictions":["end"]}'
    del bodies[7], bodies[-1]
    numbers = [n for n in range(number - 1) if n != 7]
    assert bodies == [b'{"predictions":[%d]}' % n for n in numbers]


def test_thousands_of_requests_in_one_piece_are_answered(door):
    number = 8000
    with door.connect() as raw:
        threading.Thread(
            target=raw.send, args=[number * b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"]
        ).start()
        found = 0
        while found < number:
            found += raw.read().count(b"{")


def test_what_cannot_be_read_is_refused_after_what_came_before_it(door):
    with door.connect() as raw:
        raw.send(post(BODY, PREDICT) + b"\x00\x01")
        answer, _, refusal = raw.read(until_end=True).partition(b'{"predictions":["a"]}')
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert refusal.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"application/problem+json" in refusal
    assert b"connection: close" in refusal


def test_http_1_0_is_kept_where_it_asks_for_it(door):
    with door.connect() as raw:
        raw.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert b"connection: keep-alive" in raw.read()
        raw.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"connection: close" in raw.read(until_end=True)


def test_a_client_that_asks_first_sends_its_body_then(door):
    with door.connect() as raw:
        head, _, body = post(BODY, PREDICT, "Expect: 100-continue").partition(b"\r\n\r\n")
        raw.send(head + b"\r\n\r\n")
        assert raw.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.send(body)
        assert raw.status() == 200


def test_a_client_that_goes_on_sending_reads_why_it_was_refused(door):
    with door.connect() as raw:
        raw.send(post(100 * LIMIT * b"a", PREDICT))
        assert raw.status() == 413


def test_the_response_to_head_says_how_long_that_to_get_is(door):
    with door.connect() as raw:
        raw.send(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        bare = raw.read()
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        whole = raw.read()
    body = b'{"ok":true}'
    assert b"content-length: %d\r\n" % len(body) in bare
    assert (bare[-4:], whole[-15:]) == (b"\r\n\r\n", b"\r\n\r\n" + body)


def test_who_closes_one_half_of_a_connection_counts_as_gone(door, shared):
    with shared.gate() as (client, gated), door.connect() as raw:
        running = client.submit(["running"])
        gated.wait_begun("running")
        raw.post(b'{"instances": ["gone"]}', "/v1/models/gate:predict")
        until(lambda: shared.open_items("gate") == 2)
        raw.socket.shutdown(socket.SHUT_WR)
        until(lambda: shared.open_items("gate") == 1)
        assert raw.read() == b""
        gated.open()
        running.result(20)
        assert gated.begun == ["running"]


def test_idle_and_silent_connections_are_closed(door):
    with door.connect() as silent, door.connect() as idle, door.connect() as slow:
        idle.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.status() == 200
        slow.send(b"GET /heal")
        assert slow.status() == 408
        assert silent.read() == b""
        assert idle.read() == b""


def test_a_client_that_reads_nothing_stops_being_read(door):
    padding = 4000 * b"a"
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nPadding: %s\r\n\r\n" % padding
    piece, most = 100 * request, 40_000
    with door.connect() as raw:
        raw.socket.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < most:
                raw.socket.sendall(piece)
                sent += 100
        assert sent < most, "hundreds of megabytes of answers were kept for it"
        assert door.predict("a", model="echo").status_code == 200


def test_a_long_answer_is_not_cut_short_by_what_follows_it(door, shared):
    asked = post(b'{"instances": [1]}', "/v1/models/gate:predict")
    with shared.gate() as (_, gated), door.connect() as whole, door.connect() as part:
        whole.send(asked + post(BODY, PREDICT, "Connection: close"))
        part.send(asked + post(BODY, PREDICT)[:-1])
        part.socket.settimeout(SLOW + 0.7)
        with pytest.raises(TimeoutError):
            part.read()
        gated.open()
        both = whole.read(until_end=True)
        assert both.count(b"HTTP/1.1 200 ") == 2
        assert both.endswith(b'["a"]}')
        answers = part.read(until_end=True)
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in answers


def test_large_bodies_go_through(door):
    text = (LIMIT - 100) * "a"
    with lasting(door) as client:
        for _ in range(3):
            answer = client.post(PREDICT, json={"instances": [text]})
            assert answer.json() == {"predictions": [text]}


def test_bodies_of_all_connections_together_are_bounded(door):
    number, fit = 60, 2 * 16 + 2  # of two processes
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(door.connect()) for _ in range(number)]
        for raw in raws:
            raw.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % LIMIT)
        for raw in raws:
            raw.send((LIMIT - 1) * b"a")
        refused = until(lambda: refused_of(raws) if len(refused_of(raws)) >= number - fit else None)
        assert {raw.status() for raw in refused} == {503}
    assert door.predict("a", model="echo").status_code == 200


def refused_of(raws):
    """The connections on which something can be read."""
    ready, _, _ = select.select([raw.socket for raw in raws], [], [], 0)
    return [raw for raw in raws if raw.socket in ready]


# ------------------------------------------------------------------ processes


def test_each_process_tells_the_metrics_of_all(door):
    for _ in range(20):
        door.predict("a", model="echo")  # each over a connection of its own

    def counted():
        lines = httpx.get(f"{door.url}/metrics").text.splitlines()
        found = [each for each in lines if each.startswith("zstreamer_http_items_total")]
        return {each.split()[0]: float(each.split()[1]) for each in found}

    until(lambda: sum(counted().values()) >= 20)
    assert counted() == counted() == counted()


def test_a_process_that_dies_is_replaced(shared):
    with gateway(shared.address, "--log-level", "error") as server:
        [before] = descendants(server.process.pid)
        os.kill(before, signal.SIGKILL)
        until(lambda: descendants(server.process.pid) not in ([], [before]))
        assert server.predict("a", model="echo").status_code == 200  # the socket has not gone


@pytest.mark.parametrize("own", [False, True], ids=["folder of its own", "folder of its user"])
def test_a_killed_gateway_leaves_no_process_and_no_folder_of_its_own(shared, tmp_path, own):
    named = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)} if own else {}
    options = {"env": {"TMPDIR": str(tmp_path), **named}}
    with gateway(shared.address, "--processes", "2", **options) as server, server.connect():
        doors = descendants(server.process.pid)
        assert len(doors) == 2
        assert list(tmp_path.iterdir())
        server.process.kill()
        assert all_gone(doors, 1.5)
        assert bool(list(tmp_path.iterdir())) == own
        server.process.wait()


def test_a_second_signal_ends_it_at_once(shared):
    with shared.gate() as (_, gated), gateway(shared.address) as server, server.connect() as raw:
        raw.post(b'{"instances": ["last"]}', "/v1/models/gate:predict")
        gated.wait_begun("last")
        doors = descendants(server.process.pid)
        server.process.terminate()
        until(lambda: refuses(server))
        assert server.stop() == ExitCode.NOT_DRAINED
        assert all_gone(doors, 1)
        assert raw.read() == b""


def test_the_grace_ends(shared):
    with shared.gate() as (_, gated), gateway(shared.address, "--drain-grace", "0.3") as server:
        with server.connect() as raw:
            raw.post(b'{"instances": ["last"]}', "/v1/models/gate:predict")
            gated.wait_begun("last")
            assert server.stop() == ExitCode.NOT_DRAINED


def refuses(server):
    with contextlib.suppress(ConnectionRefusedError):
        server.connect().close()
        return False
    return True


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_in_use_has_an_exit_code_and_one_line(door, processes):
    options = [f"--port={door.port}", f"--processes={processes}"]
    done = subprocess.run(
        [sys.executable, "-m", "zstreamer", "gateway", *options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == ExitCode.UNREACHABLE
    assert done.stderr.count("\n") == 1
    assert f"cannot bind http://127.0.0.1:{door.port}: Address already in use" in done.stderr


def test_a_broker_that_is_restarted_is_found_again():
    with Cluster(tcp=True) as cluster:
        cluster.worker("echo")
        with gateway(cluster.address) as server, lasting(server) as client:
            assert server.predict("a").json() == {"predictions": ["a"]}
            cluster.broker.kill()
            cluster.broker.wait()
            answers = []
            waits = threading.Thread(target=lambda: answers.append(server.predict("b")))
            waits.start()
            cluster.start_broker()
            waits.join(30)
            assert answers[0].json() == {"predictions": ["b"]}
            assert client.post("/v1/models/default:predict", json={"instances": [1]}).is_success


def test_a_broker_that_is_absent_is_a_503_in_time():
    with Server("zstreamer", "gateway", "--broker", f"tcp://127.0.0.1:{free_port()}") as server:
        took, answer = seconds(lambda: server.predict("a", headers={"X-Request-Timeout": "0.3"}))
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert took < 10  # less than a call may take
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_hostile_clients_get_clean_answers_and_leave_it_as_fast():
    rows, attacked, fresh = hostile.run(requests=200, seconds=0.2)
    assert [row for row in rows if not row.good] == []
    assert sum(sum(row.answers.values()) for row in rows) >= 200
    assert max(attacked) > 0.6 * max(fresh), "it is to be as fast; a busy machine may not be"


def test_an_owner_that_lets_go_ends_all_processes(shared):
    config = GatewayConfig(
        broker=(shared.address,), port=free_port(), processes=2, log_level="error"
    )
    with Process("zstreamer.web.gateway.parent", config) as process:
        doors = until(lambda: found if len(found := descendants(process.pid)) == 2 else None)
        process._let_go()
        assert all_gone([process.pid, *doors], 1.5)


# ------------------------------------------------------------------ zstreamer up


def test_up_serves_over_http_and_ends_in_order():
    ports = {"--port": free_port(), "--worker-port": free_port(), "--http-port": 0}
    options = [str(word) for pair in ports.items() for word in pair]
    http = free_port()
    command = ["zstreamer", "up", "tests.helpers.models:double", "--http", str(http), *options]
    with subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT) as up:
        url = f"http://127.0.0.1:{http}"
        try:
            until(lambda: ready(url), 30)
            body = json.dumps({"instances": [21]})
            assert httpx.post(f"{url}/v1/models/default:predict", content=body).json() == {
                "predictions": [42]
            }
            started = descendants(up.pid)
            up.terminate()
            assert up.wait(20) == ExitCode.OK
            assert all_gone(started, 1)
        finally:
            up.kill()


def ready(url):
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz", timeout=3).status_code == 200
