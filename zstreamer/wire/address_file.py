"""The file in which a broker says where it is: `zstreamer broker --address-file FILE`.

A JSON object of one line, written whole or not at all, and removed when the broker ends:

{"clients": "tcp://10.0.0.5:7787", "workers": "tcp://10.0.0.5:7788", "host": "node5", "pid": 4711}
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from pathlib import Path

from zstreamer.setting import ConfigError

WILDCARDS = {"0.0.0.0", "*", "[::]"}  # noqa: S104  # compared with, not bound


class AddressFile:
    """One broker's address file, from `__enter__` to `__exit__`.

    Args:
        path: where it is written; its folder must exist.
        clients, workers: ZeroMQ endpoints as they are bound.
        advertise: the host that others reach them by; None for what is bound, or where that is
            every address, for this machine's first one that is not loopback.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: str, clients: str, workers: str, advertise: str | None) -> None:
        self._path = Path(path)
        self.clients = advertised(clients, advertise)
        self.workers = advertised(workers, advertise)
        values = {"clients": self.clients, "workers": self.workers}
        self._text = json.dumps({**values, "host": socket.gethostname(), "pid": os.getpid()}) + "\n"

    def __enter__(self) -> AddressFile:
        try:
            self._write()
        except OSError as error:
            raise ConfigError(
                f"cannot write the address file {self._path}: {error.strerror}; "
                "make its folder, and let the broker write there"
            ) from None
        return self

    def _write(self) -> None:
        written = self._path.with_name(f".{self._path.name}.{socket.gethostname()}.{os.getpid()}")
        try:
            with written.open("w", encoding="utf-8") as file:
                file.write(self._text)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self._path)
        finally:
            written.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # gone already, or the folder is
            if self._path.read_text(encoding="utf-8") == self._text:  # not its successor's
                self._path.unlink()


def read(path: Path, side: str) -> str:
    """Return the address for ``side`` ("clients" or "workers").

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an address file.
    """
    try:
        address = json.loads(path.read_text(encoding="utf-8"))[side]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is not an address file ({error!r})") from None
    if not isinstance(address, str) or not re.fullmatch(r"tcp://.+:\d+|ipc://.+", address):
        raise ValueError(f"{path} is not an address file: {side} is {address!r:.100}")
    return address


def advertised(endpoint: str, host: str | None) -> str:
    """Return the address at which others reach a bound endpoint."""
    # libzmq says so of an IPv4 address that it has bound with IPv6 switched on.
    endpoint = re.sub(r"\[::ffff:([\d.]+)\]", r"\1", endpoint)
    found = re.fullmatch(r"tcp://(.+):(\d+)", endpoint)
    if found is None or (host is None and found[1] not in WILDCARDS):
        return endpoint
    name = host or own_address()
    return f"tcp://[{name}]:{found[2]}" if ":" in name else f"tcp://{name}:{found[2]}"


def own_address() -> str:
    """Return this machine's IP address as others see it; its loopback where it has no other."""
    with contextlib.suppress(OSError):
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET):
            if not str(address[0]).startswith("127."):
                return str(address[0])
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only picks the interface
        return str(probe.getsockname()[0])
    return "127.0.0.1"
