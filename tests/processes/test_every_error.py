"""Every class of `zstreamer.errors` reaches a caller through a real broker, worker and client.

Only `Unauthorized` is said by a stand-in: test_keys.py has brokers with keys. A class that comes
without a scenario here fails, and so does one of which the README does not say what to do.
"""

import inspect
import re

import msgpack
import pytest
import zmq

from tests.helpers.cluster import ROOT, Cluster, free_port
from tests.helpers.waiting import until
from zstreamer import Client, errors
from zstreamer.wire import protocol

MiB = 2**20

CLASSES = {
    cls
    for cls in vars(errors).values()
    if inspect.isclass(cls)
    and issubclass(cls, errors.ZStreamerError)
    and cls is not errors.ZStreamerError
}

SCENARIOS = {}


def raises(cls):
    """The function calls a model in vain, on the shared cluster or one of its own."""

    def register(scenario):
        SCENARIOS[cls] = scenario
        return scenario

    return register


def call_and_be_refused(wire):
    """Call a stand-in for a broker, which says no more than this error."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        port = free_port()
        router.bind(f"tcp://127.0.0.1:{port}")
        with Client(f"tcp://127.0.0.1:{port}") as client:
            future = client.submit([1])
            until(lambda: router.poll(0))
            session, _ = router.recv_multipart()
            router.send_multipart([session, *protocol.plain(protocol.Refuse(wire))])
            future.result(10)


@raises(errors.BadRequest)
def an_item_that_no_worker_can_decode(shared, monkeypatch):
    shared.client(model="echo").predict([1, msgpack.ExtType(7, b"of another program")])


@raises(errors.Unauthorized)
def a_broker_that_does_not_know_the_key(shared, monkeypatch):
    call_and_be_refused(errors.to_wire(errors.Unauthorized("this key is on no list")))


@raises(errors.ModelNotFound)
def a_model_that_nobody_serves(shared, monkeypatch):
    shared.client(model="doubel").predict([1])


@raises(errors.TooLarge)
def an_item_beyond_the_workers_limit(shared, monkeypatch):
    with shared.serving("echo", max_payload=2 * MiB) as client:
        client.predict([bytes(3 * MiB)])


@raises(errors.Overloaded)
def more_items_than_a_client_may_have_open(shared, monkeypatch):
    with Cluster(client_items=2) as cluster, cluster.gate() as (client, gate):
        client.submit(["a"])
        client.submit(["b"])
        until(lambda: cluster.open_items("gate") == 2)
        client.predict(["c"])


@raises(errors.Cancelled)
def a_client_that_is_closed_while_its_item_runs(shared, monkeypatch):
    with shared.gate() as (client, gate):
        future = client.submit(["a"])
        gate.wait_begun("a")
        client.close()
        future.result(10)


@raises(errors.PredictError)
def an_item_that_the_model_cannot_take(shared, monkeypatch):
    shared.client(model="picky").predict(["boom"])


@raises(errors.WorkerLost)
def an_item_that_kills_whoever_runs_it(shared, monkeypatch):
    with shared.serving("deadly") as client:
        client.predict(["die"])


@raises(errors.NoWorker)
def a_model_that_does_not_start_in_time(shared, monkeypatch):
    with shared.worker("Broken", model="broken", boot_attempts=1000):
        until(lambda: shared.model("broken").get("trouble"))
        shared.client(model="broken").predict([1], timeout=0.5)


@raises(errors.DeadlineExceeded)
def a_model_that_takes_longer_than_the_budget(shared, monkeypatch):
    with shared.gate() as (client, gate):
        client.predict(["a"], timeout=0.3)


@raises(errors.VersionMismatch)
def a_client_of_another_release(shared, monkeypatch):
    hello = protocol.hello

    def later(message):
        return hello(message._replace(version=protocol.VERSION + 1))

    monkeypatch.setattr(protocol, "hello", later)
    shared.client(model="echo").predict([1])


@raises(errors.BrokerUnreachable)
def an_address_where_no_broker_is(shared, monkeypatch):
    with Client(f"ipc://{shared.folder}/none", connect_timeout=0.3) as client:
        client.predict([1])


@pytest.mark.gevent
@pytest.mark.parametrize("cls", sorted(CLASSES, key=lambda cls: cls.code), ids=lambda c: c.__name__)
def test_a_caller_can_meet_every_class(shared, monkeypatch, cls):
    assert cls in SCENARIOS, f"no scenario raises {cls.__name__}; write one"
    with pytest.raises(errors.ZStreamerError) as caught:
        SCENARIOS[cls](shared, monkeypatch)
    assert type(caught.value) is cls, repr(caught.value)
    assert len(caught.value.message.split()) > 1, "words that help"


@pytest.mark.gevent
def test_what_a_later_broker_says_is_still_an_error():
    with pytest.raises(errors.ZStreamerError, match="unknown error 777: out of tokens"):
        call_and_be_refused([777, "out of tokens", {}])


def test_the_readme_says_of_every_class_what_its_catcher_should_do():
    section = re.search(r"(?ms)^## Errors\n(.*?)^## ", (ROOT / "README.md").read_text())[1]
    told = {}
    for row in re.findall(r"(?m)^\| (`.*?) \| (.*?) \|$", section):
        told |= dict.fromkeys(re.findall(r"`(\w+)`", row[0]), row[1])
    assert set(told) == {cls.__name__ for cls in CLASSES}
    assert all(told.values())
