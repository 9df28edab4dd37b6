"""The programs that are compared with the broker: libzmq's proxy in C, and a relay in pyzmq.

Both do nothing but forward, ROUTER to DEALER and back. The relay is what any broker in Python must
spend before it has looked at a message.
"""

from __future__ import annotations

import zmq

from tests.bench.program import READY, begin


def main() -> None:
    """Forward between the settings' ``front`` and ``back`` until the benchmark ends."""
    settings, counters = begin()
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    for socket, address in ((front, settings["front"]), (back, settings["back"])):
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.bind(address)
    counters[READY] = 1
    if settings["middle"] == "proxy":
        zmq.proxy(front, back)
    relay({front: back, back: front})


def relay(ways: dict[zmq.Socket[bytes], zmq.Socket[bytes]]) -> None:
    """Forward each socket's messages to the other, for ever."""
    poller = zmq.Poller()
    for socket in ways:
        poller.register(socket, zmq.POLLIN)
    while True:
        for socket, _ in poller.poll():
            while True:
                try:
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                ways[socket].send_multipart(frames)


if __name__ == "__main__":
    main()
