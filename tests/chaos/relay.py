"""A network of one's own: passes bytes between one address and another, stalls, and resets."""

import contextlib
import selectors
import socket
import struct
import threading
from collections import deque

from tests.helpers.cluster import free_port

CHUNK = 64 * 1024
PATIENCE = 5.0
"""Seconds for which a side may refuse bytes before its connection is cut."""


class Relay:
    """Listens on a port of its own and connects each caller to the target.

    Args:
        target: the address to pass on to, tcp://127.0.0.1:PORT.

    Attributes:
        address: where to connect instead.
        cuts: how many connections were reset so far.
    """

    def __init__(self, target):
        self._target = int(target.rpartition(":")[2])
        port = free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self._peers = {}
        self._commands = deque()
        self._selector = selectors.DefaultSelector()
        self._wake, waker = socket.socketpair()
        self._waker = waker
        self._stalled = False
        self._tearing = False
        self._open = True
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def reset(self, *, midway=False):
        """Reset all connections, now or after half of the next bytes that pass."""
        self._do(self._tear if midway else self._reset)

    @contextlib.contextmanager
    def stalled(self):
        """Nothing passes for as long as the block, not even a new connection; then all does."""
        self._do(lambda: setattr(self, "_stalled", True))
        try:
            yield
        finally:
            self._do(lambda: setattr(self, "_stalled", False))

    def _do(self, command):
        self._commands.append(command)
        self._waker.send(b"\0")

    def _tear(self):
        self._tearing = True

    def _reset(self):
        self._tearing = False
        while self._peers:
            self._cut(next(iter(self._peers)))

    def _cut(self, one):
        """Close a connection's two ends with a RST, which drops what they have not read."""
        self.cuts += 1
        for end in (one, self._peers[one]):
            self._selector.unregister(end)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
            del self._peers[end]

    def _run(self):
        while self._open:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake:
                    self._wake.recv(CHUNK)
                    while self._commands:
                        self._commands.popleft()()
                    self._listen()
                    break  # what was ready may be closed or stalled now
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._peers:
                    self._pass(key.fileobj)
        for each in (*self._peers, self._listener, self._wake, self._waker):
            each.close()
        self._selector.close()

    def _listen(self):
        """Watch all sockets, or none but the commands' while stalled."""
        watched = {key.fileobj for key in self._selector.get_map().values()}
        for each in (self._listener, *self._peers):
            if self._stalled and each in watched:
                self._selector.unregister(each)
            elif not self._stalled and each not in watched:
                self._selector.register(each, selectors.EVENT_READ)

    def _accept(self):
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._target), PATIENCE)
        except OSError:
            near.close()
            return
        self._peers[near], self._peers[far] = far, near
        for end in (near, far):
            end.settimeout(PATIENCE)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ)

    def _pass(self, source):
        try:
            data = source.recv(CHUNK)
            if self._tearing and len(data) > 1:
                self._peers[source].sendall(data[: len(data) // 2])
                self._reset()
                return
            self._peers[source].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._cut(source)

    def close(self):
        """Cut everything and stop listening."""
        self._do(lambda: setattr(self, "_open", False))
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
