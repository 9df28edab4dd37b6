"""Connections that the broker ends by their descriptor: those alone that it means."""

import contextlib
import socket

import pytest

from zstreamer.broker import descriptors


@contextlib.contextmanager
def connection(kind, address):
    """The two ends of a connection to a listening socket, and where that listens."""
    with socket.socket(kind, socket.SOCK_STREAM) as listening:
        listening.bind(address)
        listening.listen()
        with socket.socket(kind, socket.SOCK_STREAM) as far:
            far.settimeout(10)
            far.connect(listening.getsockname())
            near, _ = listening.accept()
            with near:
                yield near, far, listening.getsockname()


def has_ended(near, far):
    with contextlib.suppress(OSError):
        near.sendall(b"x")
    return far.recv(1) == b""


def test_a_connection_is_ended_where_it_came_in_and_nowhere_else():
    with connection(socket.AF_INET, ("127.0.0.1", 0)) as (near, far, (_, port)):
        descriptors.shut(
            near.fileno(), port + 1
        )  # its number was that of another connection before
        assert not has_ended(near, far)
        descriptors.shut(near.fileno(), descriptors.place(f"tcp://127.0.0.1:{port}"))
        assert has_ended(near, far)


def test_a_connection_over_a_unix_socket_is_ended_too(tmp_path):
    path = str(tmp_path / "socket")
    with connection(socket.AF_UNIX, path) as (near, far, _):
        descriptors.shut(near.fileno(), 7787)
        assert not has_ended(near, far)
        descriptors.shut(near.fileno(), descriptors.place(f"ipc://{path}"))
        assert has_ended(near, far)


@pytest.mark.parametrize("descriptor", [-1, 10**6])
def test_a_descriptor_that_is_none_any_more_harms_nothing(descriptor):
    descriptors.shut(descriptor, 7787)
