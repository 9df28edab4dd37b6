"""The hops of one item in bare pyzmq, as programs: what a round trip is compared with.

    client ──TCP──▶ forwarder ──TCP──▶ worker ──socketpair──▶ model
    DEALER          ROUTER, ROUTER     DEALER                 (returns what it got)

Nothing but the hops: no bundles, deadlines or errors. A worker of zstreamer is two processes, its
agent and the model's, and so is this one; with ``model`` false the worker itself answers. A model
that naps before it answers leaves everybody asleep, as a real one would, and whoever sleeps takes
longer to be woken.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import time

import zmq

from tests.bench.program import READY, Program, begin
from tests.helpers.cluster import free_port
from zstreamer.system.interpreter import environment, module_command

PATIENCE_MS = 10_000
SLEPT = struct.Struct("<d")
_SIZE = 4
"""Bytes that hold the length of what goes over the socketpair."""


class Hops:
    """A client and the programs behind it, for as long as the block.

    Args:
        model: whether a process of its own answers.
        nap: seconds that it sleeps before; it then answers with the seconds that it really slept
            (a double) in place of what it got.
    """

    def __init__(self, *, model: bool, nap: float = 0.0) -> None:
        self._model = model
        self._nap = nap
        self._stack = contextlib.ExitStack()

    def __call__(self, payload: bytes) -> bytes:
        """Send one item round; raise TimeoutError where it does not come back."""
        self._socket.send(payload)
        if not self._socket.poll(PATIENCE_MS):
            raise TimeoutError("the bare hops have lost an item")
        return self._socket.recv()

    def __enter__(self) -> Hops:
        with contextlib.ExitStack() as stack:
            front, back = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
            for part in ("forwarder", "worker"):
                model = {"model": self._model, "nap": self._nap}
                program = Program("tests.bench.hops", part=part, front=front, back=back, **model)
                stack.enter_context(program).wait_ready()
            self._socket = zmq.Context.instance().socket(zmq.DEALER)
            stack.callback(self._socket.close, linger=0)
            self._socket.connect(front)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def forward(front: str, back: str, counters: memoryview) -> None:
    """Carry messages between clients and the one worker, which says first that it is there."""
    context = zmq.Context()
    clients, workers = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    clients.bind(front)
    workers.bind(back)
    poller = zmq.Poller()
    poller.register(clients, zmq.POLLIN)
    poller.register(workers, zmq.POLLIN)
    counters[READY] = 1
    worker, _ = workers.recv_multipart()
    while True:
        poller.poll()
        with contextlib.suppress(zmq.Again):
            while True:
                _, client, payload = workers.recv_multipart(zmq.NOBLOCK)
                clients.send_multipart((client, payload))
        with contextlib.suppress(zmq.Again):
            while True:
                client, payload = clients.recv_multipart(zmq.NOBLOCK)
                workers.send_multipart((worker, client, payload))


def work(back: str, counters: memoryview, with_model: bool, nap: float) -> None:
    """Answer each message, by way of the model's process where there is one."""
    link = zmq.Context().socket(zmq.DEALER)
    link.connect(back)
    model = _start_model(nap) if with_model else None
    link.send(b"here")
    counters[READY] = 1
    while True:
        client, payload = link.recv_multipart()
        if model is not None:
            _write(model, payload)
            payload = _read(model)
        link.send_multipart((client, payload))


def _start_model(nap: float) -> socket.socket:
    ours, theirs = socket.socketpair()
    command = [*module_command("tests.bench.hops"), str(theirs.fileno()), str(nap)]
    subprocess.Popen(command, env=environment({}), pass_fds=(theirs.fileno(),))
    theirs.close()
    return ours


def answer(link: socket.socket, nap: float) -> None:
    """Be the model: return every item, until the worker is gone."""
    with contextlib.suppress(ConnectionError):
        while True:
            item = _read(link)
            if nap:
                start = time.monotonic()
                time.sleep(nap)
                item = SLEPT.pack(time.monotonic() - start)
            _write(link, item)


def _write(link: socket.socket, payload: bytes) -> None:
    link.sendall(len(payload).to_bytes(_SIZE, "big") + payload)


def _read(link: socket.socket) -> bytes:
    size = int.from_bytes(_exactly(link, _SIZE), "big")
    return _exactly(link, size)


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise ConnectionError("the other end is gone")
        data += piece
    return data


def main(argument: str, nap: str = "0") -> None:
    """Be the program that the argument says: a model's descriptor, or a part's settings."""
    if argument.isdigit():
        answer(socket.socket(fileno=int(argument)), float(nap))
        return
    settings, counters = begin()
    if settings["part"] == "forwarder":
        forward(settings["front"], settings["back"], counters)
    else:
        work(settings["back"], counters, settings["model"], settings["nap"])


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
