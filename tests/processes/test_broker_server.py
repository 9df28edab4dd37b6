"""The broker's loop around its core, in this process."""

import contextlib
import time

import pytest
import zmq

from tests.helpers.keys import Keys
from zstreamer.broker import rotation
from zstreamer.broker.server import Server
from zstreamer.broker.sessions import Side
from zstreamer.config import BrokerConfig
from zstreamer.keys.credentials import Credentials
from zstreamer.keys.ring import Role
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


def test_a_port_that_cannot_be_opened_with_the_next_key_ends_nothing_and_is_tried_again(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(rotation, "PATIENCE", 0.1)
    keys = Keys(tmp_path / "keys")
    web = Credentials(keys.client("web"), Role.CLIENT)
    place, away = tmp_path / "sockets", tmp_path / "away"
    place.mkdir()
    addresses = {"client_address": f"ipc://{place}/c", "worker_address": f"ipc://{place}/w"}
    server = Server(BrokerConfig(**addresses, http_port=0, keys=str(keys.path)))

    def turn(done):
        end = time.monotonic() + 20
        while not done():
            assert time.monotonic() < end
            server.turn()

    def greeted(id, curve):
        peer = Connection(addresses["client_address"], Options(), curve=curve)
        with contextlib.closing(peer):
            hello = protocol.hello(protocol.Hello(protocol.Role.CLIENT, id, {"open": []}))
            turn(lambda: peer.socket.poll(20, zmq.POLLOUT))
            say(peer, hello)
            assert isinstance(answer(server, peer), protocol.Welcome)

    try:
        greeted(1, web.curve(0))
        place.rename(away)
        keys.folder.rotate()
        keys.folder.finish_rotation()
        turn(lambda: "cannot open ipc" in caplog.text)
        assert str(place) in caplog.text
        away.rename(place)
        turn(lambda: caplog.text.count("is open again") == 2)
        greeted(2, web.curve(0))
    finally:
        server.close()
