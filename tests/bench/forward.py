"""The program that is compared with the broker: libzmq's own proxy in C, ROUTER to DEALER."""

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
    zmq.proxy(front, back)


if __name__ == "__main__":
    main()
