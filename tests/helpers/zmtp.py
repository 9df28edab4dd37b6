"""A peer that speaks ZMTP 3.0 byte by byte, and so may say what libzmq would not."""

import socket

GREETING = b"\xff" + 8 * b"\0" + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + 32 * b"\0"
MORE, LONG, COMMAND = 1, 2, 4


def frame(data, flags=0):
    """One frame as it goes over the wire."""
    if len(data) < 256:
        return bytes([flags, len(data)]) + data
    return bytes([flags | LONG]) + len(data).to_bytes(8, "big") + data


def message(frames):
    """A whole message."""
    return b"".join(frame(f, MORE if i < len(frames) - 1 else 0) for i, f in enumerate(frames))


def ready(kind=b"DEALER"):
    """The command that ends the handshake."""
    name, value = b"Socket-Type", len(kind).to_bytes(4, "big") + kind
    return frame(b"\x05READY" + bytes([len(name)]) + name + value, COMMAND)


class Peer:
    """A connection whose handshake is done.

    Args:
        port: of 127.0.0.1.
        timeout: seconds that a send or a read may take; then it raises TimeoutError.
    """

    def __init__(self, port, timeout=10.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.sendall(GREETING)
        self._read(64)
        self.socket.sendall(ready())
        self.receive()  # READY of the other side

    def send(self, frames):
        """Send a message."""
        self.socket.sendall(message(frames))

    def receive(self):
        """Return flags and data of the next frame."""
        flags, size = self._read(2)
        if flags & LONG:
            size = int.from_bytes(bytes([size]) + self._read(7), "big")
        return flags, self._read(size)

    def _read(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the other side has closed")
            data += part
        return data

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
