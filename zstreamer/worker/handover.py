"""Objects between a model's process and those that prepare for it; large buffers are not copied.

    head (two sizes) │ pickle │ descriptor of a memory that both map, with the large buffers

Arrays, tensors and payloads of 64 KiB and more lie in memory of their own, which the receiver maps:
what it gets are views of it, and it is gone with the last of them. Both ends are one user's, of one
program, so pickles are safe here.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import socket
import struct
import sys
import tempfile
from typing import Any

LARGE = 64 * 1024
"""Bytes from which a buffer goes through shared memory; below, mapping costs more than a copy."""

ALIGNED = 64
_HEAD = struct.Struct("!QQ")


class Unreadable(Exception):
    """An object has come whole, but cannot be unpickled; its cause says why. Others can follow."""


def send(channel: socket.socket, value: object) -> None:
    """Write one object; blocks while nobody reads.

    Raises:
        Exception: it cannot be pickled; then nothing was written.
        OSError: the other end is gone.
    """
    pickled, buffers = dumps(value)
    sizes = [len(each) for each in buffers]
    body = pickle.dumps((sizes, pickled))
    size = sum(map(_aligned, sizes))
    head = _HEAD.pack(len(body), size)
    if not size:
        channel.sendall(head + body)
        return
    fd = anonymous("handover", size)
    try:
        with mmap.mmap(fd, size) as block:
            at = 0
            for each in buffers:
                block[at : at + len(each)] = each
                at += _aligned(len(each))
        socket.send_fds(channel, [head], [fd])
    finally:
        os.close(fd)
    channel.sendall(body)


def dumps(value: object) -> tuple[bytes, list[memoryview]]:
    """Return the pickle of an object and its large buffers; raises what pickling raises."""
    buffers: list[memoryview] = []
    file = io.BytesIO()
    _Pickler(file, buffers).dump(value)
    return file.getvalue(), buffers


def receive(channel: socket.socket) -> Any:
    """Return the next object.

    Raises:
        EOFError: the other end is gone.
        Unreadable: this object cannot be unpickled.
    """
    fds: list[int] = []
    try:
        head, fds, _, _ = socket.recv_fds(channel, _HEAD.size, 1)
        head += _exactly(channel, _HEAD.size - len(head))
        length, size = _HEAD.unpack(head)
        sizes, pickled = pickle.loads(_exactly(channel, length))  # noqa: S301  # our own
        block = memoryview(mmap.mmap(fds[0], size)) if size else memoryview(b"")
    except ConnectionError as error:
        raise EOFError from error
    finally:
        for fd in fds:
            os.close(fd)
    views, at = [], 0
    for each in sizes:
        views.append(block[at : at + each])
        at += _aligned(each)
    try:
        return pickle.loads(pickled, buffers=views)  # noqa: S301  # our own
    except BaseException as error:  # the user's code runs here, and may raise anything
        raise Unreadable from error


def anonymous(name: str, size: int) -> int:
    """Return a descriptor of so many bytes of zeros that no path leads to."""
    if hasattr(os, "memfd_create"):  # a file's page could be written to a disk now and then
        fd = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


class _Pickler(pickle.Pickler):
    """Keeps large buffers apart, those of torch's tensors on the CPU too."""

    def __init__(self, file: io.BytesIO, buffers: list[memoryview]) -> None:
        super().__init__(file, 5, buffer_callback=self._inside)
        self._buffers = buffers
        self._torch: Any = sys.modules.get("torch")

    def _inside(self, buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if len(view) < LARGE:
            return True
        self._buffers.append(view)
        return False

    def reducer_override(self, thing: Any) -> Any:
        """Called for what is not plain: a tensor goes as the array that shares its memory."""
        torch = self._torch
        if torch is None or type(thing) is not torch.Tensor or thing.requires_grad:
            return NotImplemented
        try:
            return torch.from_numpy, (thing.numpy(),)
        except (TypeError, RuntimeError):  # on a device, or of a dtype that numpy does not have
            return NotImplemented


def payload(data: bytes) -> object:
    """Return what to send in the place of a payload, so that a large one is not copied."""
    return data if len(data) < LARGE else pickle.PickleBuffer(data)


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = channel.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
