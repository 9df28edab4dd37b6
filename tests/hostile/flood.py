"""Connects again and again with a key that the broker does not know: PORT SERVER-KEY RATE."""

import os
import sys
import time
from collections import deque

import zmq

PATIENCE = 0.2
"""Seconds that a connection is left to its handshake."""


def main(port, server, rate):
    """Open so many connections a second until killed; tells the number each second."""
    os.nice(19)  # strangers have machines of their own; what they take of this one is not meant
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 16_384)
    public, secret = zmq.curve_keypair()
    opened = deque()
    begin = told = time.monotonic()
    count = 0
    while True:
        now = time.monotonic()
        while count < (now - begin) * rate:
            socket = context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, -1)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
            socket.setsockopt(zmq.CURVE_SERVERKEY, server)
            socket.connect(f"tcp://127.0.0.1:{port}")
            socket.send(b"never read", zmq.NOBLOCK)
            opened.append((now, socket))
            count += 1
        while opened and opened[0][0] < now - PATIENCE:
            opened.popleft()[1].close()
        if now - told > 1:
            told = now
            sys.stdout.write(f"{count}\n")
            sys.stdout.flush()
        time.sleep(0.002)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].encode(), float(sys.argv[3]))
