"""What a caller is told when something is wrong: a typed error, in time, in words that help."""

import contextlib
import functools
import os
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgpack
import pytest
import zmq

from tests.helpers.cluster import Cluster, free_port
from tests.helpers.marks import needs_numpy_2
from tests.helpers.waiting import until
from zstreamer import Client, errors
from zstreamer.system.exitcodes import ExitCode
from zstreamer.wire import protocol


@contextlib.contextmanager
def raises_within(seconds, error, words):
    """The block raises this error, and takes at most so long."""
    start = time.monotonic()
    with pytest.raises(error, match=words) as caught:
        yield caught
    assert time.monotonic() - start < seconds


@pytest.fixture(scope="module")
def cluster():
    """A cluster of its own that has served for longer than the grace for unknown models."""
    with Cluster(tcp=True, model_grace=0.5, max_payload=2**20) as cluster:
        cluster.worker("double", model="double")
        cluster.worker("large", model="large")
        for model in ("double", "large"):
            cluster.client(model=model).wait_ready(30)
        yield cluster


# No broker


@pytest.mark.gevent
@pytest.mark.parametrize("call", ["predict", "submit", "wait_ready"])
def test_a_wrong_address_is_an_error_that_names_it(call):
    address = f"tcp://127.0.0.1:{free_port()}"
    with Client(address, connect_timeout=0.5) as client:
        words = re.escape(address) + ".*check the address.*zstreamer broker"
        with raises_within(5, errors.BrokerUnreachable, words) as caught:
            if call == "predict":
                client.predict([1])
            elif call == "submit":
                client.submit([1]).result(10)
            else:
                client.wait_ready(10)
        assert caught.value.retryable
        assert isinstance(caught.value, ConnectionError)


@pytest.mark.gevent
def test_a_host_name_that_does_not_exist_and_a_missing_socket_file_are_errors(tmp_path):
    for address in ("tcp://no-such-host.invalid:7787", f"ipc://{tmp_path}/none"):
        with Client(address, connect_timeout=0.5) as client:
            with raises_within(10, errors.BrokerUnreachable, re.escape(address)):
                client.predict([1])


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.gevent
def test_the_address_of_a_web_server_is_an_error_that_names_it():
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"tcp://127.0.0.1:{server.server_port}"
        with Client(address, connect_timeout=0.5) as client:
            with raises_within(10, errors.BrokerUnreachable, re.escape(address)):
                client.predict([1])
        server.shutdown()
        thread.join()


@pytest.mark.gevent
def test_the_address_of_something_that_says_nothing_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with Client(address, connect_timeout=0.5) as client:
            with raises_within(10, errors.BrokerUnreachable, re.escape(address)):
                client.predict([1])


@pytest.mark.gevent
def test_the_address_of_another_zeromq_program_is_an_error_that_names_it():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = free_port()
        router.bind(f"tcp://127.0.0.1:{port}")
        address = f"tcp://127.0.0.1:{port}"
        with Client(address, connect_timeout=0.5) as client:
            with raises_within(10, errors.BrokerUnreachable, re.escape(address)):
                client.predict([1])
        router.close(linger=0)


@pytest.mark.gevent
def test_the_workers_port_given_to_a_client_is_an_error_that_says_so(cluster):
    with Client(cluster.worker_address) as client:
        with raises_within(4, errors.BadRequest, "port is for workers.*swapped"):
            client.predict([1])
        with raises_within(4, errors.BadRequest, "port is for workers"):
            client.wait_ready(10)


@pytest.mark.gevent
def test_a_broker_that_is_killed_for_good_fails_open_calls_in_their_time(tmp_path):
    with Cluster() as cluster:
        cluster.worker("Gate", init_kwargs={"folder": str(tmp_path)})
        cluster.wait_up()
        client = cluster.client(timeout=1, connect_timeout=0.5)
        cluster.wait_warm(1)
        client.wait_ready(30)
        future = client.submit(["a"])
        until(lambda: cluster.at_workers("default") == 1)
        cluster.broker.kill()
        with raises_within(6, errors.DeadlineExceeded, "no broker at .* could be reached"):
            future.result(10)
        with raises_within(5, errors.BrokerUnreachable, re.escape(cluster.address)):
            client.predict(["b"])


# No model


@pytest.mark.gevent
def test_a_missing_model_is_an_error_that_names_those_that_are_served(cluster):
    client = cluster.client(model="doubel")
    with raises_within(5, errors.ModelNotFound, "'doubel'.*'double', 'large'") as caught:
        client.predict([1])
    assert caught.value.models == ("double", "large")
    assert not caught.value.retryable


@pytest.mark.gevent
def test_a_young_broker_waits_for_a_models_workers_before_it_says_that_there_are_none():
    with Cluster(model_grace=2) as cluster:
        start = time.monotonic()
        with raises_within(15, errors.ModelNotFound, "served: none"):
            cluster.client(model="late").predict([1])
        assert time.monotonic() - start > 1
        future = cluster.client(model="double", timeout=1).submit([1])
        assert isinstance(future.exception(10), errors.ModelNotFound)


@pytest.mark.gevent
def test_a_known_model_whose_workers_are_gone_is_an_error_that_says_so(cluster):
    with cluster.serving("echo") as client:
        assert client.predict([1]) == [1]
        model = client._settings.model
        kept = cluster.client(model=model, timeout=1)
    with raises_within(10, errors.NoWorker, f"no worker is connected for model '{model}'"):
        kept.predict([1])


@pytest.mark.gevent
def test_a_model_that_cannot_start_is_an_error_with_its_traceback():
    with Cluster(model_grace=60) as cluster:
        worker = cluster.worker("Broken", boot_attempts=2)
        words = r"(?s)Traceback.*init_model.*RuntimeError: the weights are missing"
        with raises_within(20, errors.NoWorker, words) as caught:
            cluster.client(timeout=30).predict([1])
        assert caught.value.final
        with raises_within(5, errors.NoWorker, words):
            cluster.client(timeout=30).wait_ready(30)
        assert worker.wait(10) == ExitCode.MODEL


@pytest.mark.gevent
def test_a_call_whose_time_ends_while_a_model_fails_to_start_says_why(tmp_path):
    with Cluster(model_grace=60) as cluster:
        cluster.worker("Broken", boot_attempts=1000)
        until(lambda: cluster.wait_up() and cluster.model().get("trouble"))
        with raises_within(6, errors.NoWorker, "the weights are missing"):
            cluster.client(timeout=1).predict([1])


def test_a_model_that_does_not_exist_ends_its_worker_with_one_clear_line(cluster, capfd):
    worker = cluster.worker("nothing", model="none")
    assert worker.wait(20) == ExitCode.MODEL
    assert "module 'tests.helpers.models' has no 'nothing'" in capfd.readouterr().err


# Answers that are none


@pytest.mark.gevent
def test_the_wrong_number_of_outputs_is_an_error_that_says_so(shared):
    with shared.serving("forgetful", batch_size=8) as client:
        words = "returned 0 outputs for 1 input"
        with raises_within(10, errors.PredictError, words) as caught:
            client.predict([1, 2, 3])
        assert caught.value.type == "WrongNumberOfOutputs"


@pytest.mark.gevent
def test_an_item_that_the_model_drops_errs_alone(shared):
    with shared.serving("careless", batch_size=8) as client:
        answers = client.predict([1, "drop", 3, 4, 5], return_exceptions=True)
    assert isinstance(answers.pop(1), errors.PredictError)
    assert answers == [1, 3, 4, 5]


@pytest.mark.gevent
@pytest.mark.parametrize("way", ["prepare", "predict", "returned"])
def test_a_refusal_by_the_model_reaches_its_caller_as_what_it_is(shared, way):
    with shared.serving("Refusing", batch_size=8, init_kwargs={"way": way}) as client:
        for item, kind in (("bad", errors.BadRequest), ("large", errors.TooLarge)):
            answers = client.predict(["a", item, "b"], return_exceptions=True)
            error = answers.pop(1)
            assert type(error) is kind
            assert str(error) == "not with me"
            assert answers == ["a", "b"]


@pytest.mark.gevent
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tuple key", "output[0] has the key ('a', 'b'), a tuple"),
        ("masked", "its mask would be lost"),
        pytest.param("texts", "dtype StringDType", marks=needs_numpy_2),
        ("time", "beyond the years 1 to 9999"),
        ("extension", "output['x'] is msgpack.ext.ExtType"),
        ("bare tensor", "output is object"),
    ],
)
def test_what_a_model_returns_and_nothing_can_carry_is_its_own_fault_and_named(shared, name, words):
    with shared.serving("odd_outputs", batch_size=8) as client:
        answers = client.predict(["fine", name, "fine"], return_exceptions=True)
    error = answers.pop(1)
    assert isinstance(error, errors.PredictError)
    assert error.type == "BadOutput"
    assert words in error.message
    assert answers == ["fine", "fine"]


@pytest.mark.gevent
def test_an_output_that_cannot_be_sent_fails_its_item_alone(shared):
    with shared.serving("unsendable", batch_size=8) as client:
        answers = client.predict(["fine", "bad", "fine"], return_exceptions=True)
        assert (answers[0], answers[2]) == ("fine", "fine")
        assert answers[1].type == "BadOutput"
        assert "is object" in str(answers[1])


def test_a_model_whose_only_worker_hangs_is_not_ready_and_its_batch_has_an_age(shared):
    with shared.gate() as (client, gate):
        gate.open()
        client.predict(["quick"])
        gate.shut()
        hung = client.submit(["hung"])
        gate.wait_begun("hung")
        assert shared.model("gate")["ready"]
        until(lambda: not shared.model("gate")["ready"], 10)
        model = shared.model("gate")
        assert "a batch has run for" in model["trouble"]
        assert model["workers"][0]["batch_age"] > 1
        until(lambda: shared.model("gate")["workers"][0]["state"] == "late", 10)
        gate.open()
        assert hung.result(20)[0][0] == "hung"
        until(lambda: shared.model("gate")["ready"])


@pytest.mark.gevent
def test_a_spent_budget_is_an_error_on_time_and_what_waits_is_not_run(shared):
    with shared.gate() as (client, gate):
        first = client.submit(["first"])
        gate.wait_begun("first")
        # Client and broker both look at the clock; on a busy machine either may be the first.
        words = r"no answer within 0\.3 s|ended while it waited in the broker's queue"
        with raises_within(5, errors.DeadlineExceeded, words) as caught:
            client.predict(["late"], timeout=0.3)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.retryable
        until(lambda: shared.open_items("gate") == 1)
        gate.open()
        assert first.result(20)[0][0] == "first"
        client.predict(["last"])
        assert gate.begun == ["first", "last"]


@pytest.mark.gevent
@pytest.mark.parametrize("size", [2**20 + 1, 5 * 2**20])
def test_what_exceeds_the_size_limit_is_an_error_that_names_it(cluster, size):
    client = cluster.client(model="large")
    with raises_within(5, errors.TooLarge, r"exceeds .*limit of 1048576") as caught:
        client.predict([1, bytes(size)])
    assert caught.value.index == 1
    with raises_within(10, errors.TooLarge, r"exceeds the limit of 1048576"):
        client.predict([size])
    assert client.predict([10]) == [bytes(10)]


@pytest.mark.gevent
def test_a_worker_refuses_an_input_beyond_its_own_limit(shared):
    with shared.serving("echo", max_payload=2 * 2**20, batch_size=1) as client:
        with raises_within(10, errors.TooLarge, "worker's max_payload"):
            client.predict([bytes(3 * 2**20)])
        assert client.predict([b"x"]) == [b"x"]


@pytest.mark.gevent
def test_more_than_the_caps_is_refused_quickly_with_overloaded(tmp_path):
    with Cluster(client_items=10, window_items=100, window_bytes=2**20) as cluster:
        cluster.worker("Gate", batch_size=1, init_kwargs={"folder": str(tmp_path)})
        client = cluster.client()
        client.wait_ready(30)
        futures = [client.submit([f"i{n}"]) for n in range(10)]
        until(lambda: cluster.open_items("default") == 10)
        with raises_within(5, errors.Overloaded, "too much open work") as caught:
            client.predict(["more"])
        assert caught.value.retry_after > 0
        (tmp_path / "open").touch()
        assert [future.result(20)[0][0] for future in futures] == [f"i{n}" for n in range(10)]


# Peers that speak another language


@contextlib.contextmanager
def dealer(address):
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        socket.connect(address)
        yield socket


@pytest.mark.parametrize("port", ["address", "worker_address"])
def test_a_hello_of_another_version_is_refused_with_words(cluster, port):
    with dealer(getattr(cluster, port)) as peer:
        hello = [int(protocol.Kind.HELLO), protocol.MAGIC, protocol.VERSION + 1, {"new": 1}]
        peer.send(msgpack.packb(hello))
        refusal = protocol.decode([peer.recv()])
    assert isinstance(refusal, protocol.Refuse)
    error = errors.from_wire(refusal.error)
    assert isinstance(error, errors.VersionMismatch)
    assert f"version {protocol.VERSION}, its peer {protocol.VERSION + 1}" in str(error)


@pytest.mark.gevent
def test_a_client_that_is_refused_for_its_version_says_so_at_once():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = free_port()
        router.bind(f"tcp://127.0.0.1:{port}")
        error = errors.VersionMismatch("this broker speaks version 9, its peer 1")

        def refuse():
            session, _ = router.recv_multipart()
            frames = protocol.plain(protocol.Refuse(errors.to_wire(error)))
            router.send_multipart([session, *frames])

        with Client(f"tcp://127.0.0.1:{port}") as client:
            future = client.submit([1])
            until(lambda: router.poll(0))
            refuse()
            with raises_within(4, errors.VersionMismatch, "speaks version 9"):
                future.result(10)
        router.close(linger=0)


GARBAGE = [
    b"",
    b"\xff" * 40,
    b"GET / HTTP/1.1\r\n\r\n",
    msgpack.packb([]),
    msgpack.packb(7),
    msgpack.packb([99, 1, 2]),
    msgpack.packb([1, "ZSP", 1, 1, "no id", {}]),
    msgpack.packb([4, 0, [["model", 0, 0, 0, [1], [1], []]]]),
    msgpack.packb([12, 0, [1], [1], [b"x"]]),
    msgpack.packb([8, 1]),
]


def not_a_ping(peer):
    """The next message, None where it is only a probe."""
    message = protocol.decode([peer.recv()])
    return None if isinstance(message, protocol.Ping) else message


@pytest.mark.parametrize("greet", [False, True], ids=["strangers", "after a good HELLO"])
def test_garbage_on_both_ports_is_refused_and_counted_and_harms_nobody(cluster, greet):
    client = cluster.client(model="double")
    assert client.predict([1]) == [2]
    before = cluster.status()["broker"]["counts"].get("malformed", 0)
    roles = {"address": protocol.Role.CLIENT, "worker_address": protocol.Role.WORKER}
    with contextlib.ExitStack() as stack:
        for port, role in roles.items():
            peer = stack.enter_context(dealer(getattr(cluster, port)))
            if greet:
                info = {"model": "double", "batch_size": 4, "pool": 0}
                [hello] = protocol.hello(protocol.Hello(role, 77, info))
                peer.send(hello)
                assert isinstance(protocol.decode([peer.recv()]), protocol.Welcome)
            for garbage in GARBAGE:
                peer.send(garbage)
                peer.send_multipart([garbage, b"one", b"more"])
                peer.send(os.urandom(50))
            refusal = until(functools.partial(not_a_ping, peer))
            assert isinstance(refusal, protocol.Refuse)
            assert client.predict([2]) == [4]
        counts = until(
            lambda: (
                (found := cluster.status()["broker"]["counts"]).get("malformed", 0)
                >= before + 2 * len(GARBAGE)
                and found
            )
        )
        assert counts["refused"] >= counts["malformed"]
    assert client.predict(list(range(100))) == [2 * i for i in range(100)]


@pytest.mark.parametrize("port", ["address", "worker_address"])
def test_raw_bytes_on_a_port_harm_nobody(cluster, port):
    client = cluster.client(model="double")
    host, number = getattr(cluster, port).removeprefix("tcp://").split(":")
    zmtp = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    huge = zmtp + b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER" + b"\x02" + b"\x7f" * 8
    with contextlib.ExitStack() as stack:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(2000), b"\xff", zmtp, huge, b""):
            connection = socket.create_connection((host, int(number)), 5)
            stack.enter_context(connection)
            connection.sendall(garbage)
        for i in range(20):
            assert client.predict([i]) == [2 * i]
    assert client.predict([5]) == [10]
    assert cluster.broker.poll() is None
