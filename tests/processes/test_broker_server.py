"""The broker's loop around its core, in this process."""

import pytest
import zmq

from zstreamer.broker.server import Server
from zstreamer.broker.sessions import Side
from zstreamer.config import BrokerConfig
from zstreamer.wire import protocol
from zstreamer.wire.transport import Connection, Options


@pytest.fixture
def server(tmp_path):
    addresses = {side: f"ipc://{tmp_path}/{side}" for side in ("client", "worker")}
    config = BrokerConfig(
        client_address=addresses["client"], worker_address=addresses["worker"], http_port=0
    )
    server = Server(config)
    yield server
    server.close()


@pytest.fixture
def peer(server):
    connection = Connection(server.config.client_endpoint, Options())
    yield connection
    connection.close()


def answer(server, peer):
    """Let the broker's loop turn until the peer is told something."""
    while not peer.socket.poll(10):
        server.turn()
    return protocol.decode(peer.socket.recv_multipart())


def say(peer, frames):
    peer.socket.setsockopt(zmq.SNDTIMEO, 10_000)
    peer.socket.send_multipart(frames)


def test_a_message_that_the_core_fails_on_costs_its_sender_the_session_and_nobody_else(
    server, peer, caplog, monkeypatch
):
    def fail(*_):
        raise RuntimeError("a defect of ours")

    monkeypatch.setitem(server._handlers, Side.CLIENT, fail)
    say(peer, protocol.hello(protocol.Hello(protocol.Role.CLIENT, 1, {"open": []})))
    assert isinstance(answer(server, peer), protocol.Refuse)
    assert server.core.counts["failures"] == 1
    assert "a defect of ours" in caplog.text

    monkeypatch.setitem(server._handlers, Side.CLIENT, server.core.on_client)
    say(peer, protocol.hello(protocol.Hello(protocol.Role.CLIENT, 1, {"open": []})))
    assert isinstance(answer(server, peer), protocol.Welcome)
