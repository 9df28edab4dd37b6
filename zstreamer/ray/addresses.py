"""Where the brokers of a Ray cluster are, as files that this process keeps up to date.

The controller knows the addresses; a thread asks it and writes one file for each broker into a
folder of this process. Clients and workers read `file:FOLDER/*`, as anywhere else.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import ray

EVERY = 0.5
"""Seconds between two questions."""

PATIENCE = 5.0
"""Seconds for the controller's answer; without one the files stay as they are."""

Row: TypeAlias = dict[str, str]
"""A broker's addresses: "clients" and "workers"."""


class Addresses:
    """The files of one cluster's brokers; they go when this object does.

    Args:
        controller: the name of the controller's actor.
        namespace: its namespace.
    """

    def __init__(self, controller: str, namespace: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="zstreamer-ray-"))
        self._stop = threading.Event()
        weakref.finalize(self, _end, self._stop, self._folder)
        arguments = (self._folder, self._stop, controller, namespace)
        threading.Thread(target=_follow, args=arguments, daemon=True, name="addresses").start()

    @property
    def given(self) -> str:
        """The address to give to a client or a worker."""
        return f"file:{self._folder}/*"


def _follow(folder: Path, stop: threading.Event, controller: str, namespace: str) -> None:
    while not stop.wait(0):
        # Ray's errors have many types, and the controller may be on its way to another node.
        with contextlib.suppress(Exception):
            rows = _ask(controller, namespace)
            if rows and not stop.is_set():
                write(folder, rows)
        stop.wait(EVERY)


def _ask(controller: str, namespace: str) -> Sequence[Row]:
    """Return the rows, or none once the program has called `ray.shutdown`.

    From then on Ray's functions would connect anew, or start a Ray of their own.
    """
    if not ray.is_initialized():
        return ()
    actor = ray.get_actor(controller, namespace=namespace)
    if not ray.is_initialized():
        return ()
    rows: Sequence[Row] = ray.get(actor.addresses.remote(), timeout=PATIENCE)
    return rows


def write(folder: Path, rows: Sequence[Row]) -> None:
    """Have a folder hold one address file for each row."""
    wanted = {f"broker-{number}": json.dumps(row) + "\n" for number, row in enumerate(rows)}
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            written = folder / f".{name}"
            written.write_text(text, encoding="utf-8")
            written.replace(path)
    for path in folder.glob("broker-*"):
        if path.name not in wanted:
            path.unlink()


def _end(stop: threading.Event, folder: Path) -> None:
    stop.set()
    shutil.rmtree(folder, ignore_errors=True)
