"""The host's process: sockets, the workers' processes, and the core that decides."""

from __future__ import annotations

import logging
import math
import os
import random
import secrets
import socket as sockets
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import zmq

import zstreamer
from zstreamer.config import WorkerConfig
from zstreamer.errors import BadRequest
from zstreamer.keys import credentials
from zstreamer.keys.ring import Role
from zstreamer.setting import ConfigError
from zstreamer.system import logs, slots
from zstreamer.system.exitcodes import ExitCode, of_child
from zstreamer.system.process import Process
from zstreamer.system.slots import GLANCE, ProcessSlot
from zstreamer.wire import lookup, transport
from zstreamer.wire.connections import Connections
from zstreamer.wire.link import LinkState
from zstreamer.wire.offers import full_name
from zstreamer.worker.repository import folder
from zstreamer.worker.repository.core import HostLink, Key, RepositoryCore, Start, Stop
from zstreamer.worker.repository.folder import Entry

if TYPE_CHECKING:
    from zstreamer.system.process import Owner
    from zstreamer.system.signals import StopRequests

T = TypeVar("T")

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks at the folder."""

SHARE = 0.05
"""The most of its time that a host looks at its folder, which may be large or far away."""

LAST = 5.0
"""Seconds beyond the workers' own grace after which they are killed."""

FINAL = (ExitCode.MODEL, ExitCode.USAGE, ExitCode.OK)
"""What a supervisor ends with that is not to be started again."""


class Host:
    """Sockets and processes around one `RepositoryCore`.

    Raises:
        ConfigError: the folder cannot be read, or the key cannot be used.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._root = Path(config.repository or "")
        self._odd: list[str] = []
        self._slots: dict[Key, ProcessSlot] = {}
        self._graces: dict[Key, float] = {}
        self._stopping: set[Key] = set()
        self._told: dict[HostLink, str] = {}
        self._look_at = 0.0
        info = {
            "host": sockets.gethostname(),
            "pid": os.getpid(),
            "release": zstreamer.__version__,
        }
        self.core = RepositoryCore(
            config,
            secrets.randbits(63),
            time.monotonic(),
            random.random,
            info,
            self._look,
            partial(self._read, partial(folder.config, host=config)),
        )
        self._poller = poller = zmq.Poller()
        self._connections = Connections(
            self.core,
            transport.Options(config.heartbeat, config.heartbeat_timeout),
            watch=lambda each: each.register(poller),
            unwatch=lambda each: each.unregister(poller),
            credentials=credentials.given(config.keys or "", Role.WORKER),
        )
        self._lookup = lookup.started(config.broker, lookup.WORKERS)
        self.core.seen(self._look())
        self._load_first()

    def run(self, stop: StopRequests, owner: Owner | None) -> int:
        """Serve until a request to stop, then drain all models; return the exit code."""
        for each in (stop, owner):
            if each is not None:
                self._poller.register(each, zmq.POLLIN)
        while not stop.requests and (owner is None or not owner.gone()):
            self._turn()
        self._connections.close()
        # Each model's supervisor keeps to the model's own, which its file may say.
        grace = max(self._config.drain_grace, *self._graces.values(), 0.0) + LAST
        asked = [self._slots[key] for key in self._stopping]
        codes = slots.drain(list(self._slots.values()), stop, owner, grace, asked)
        return ExitCode.NOT_DRAINED if any(code not in FINAL for code in codes) else ExitCode.OK

    def _turn(self) -> None:
        wait = max(0.0, min(self.core.wake_at() - time.monotonic(), GLANCE))
        ready = {socket for socket, _ in self._poller.poll(math.ceil(wait * 1000))}
        now = time.monotonic()
        if self._lookup is not None and (found := self._lookup.news(now)):
            self.core.on_addresses(now, *found)
        self._connections.read(now, lambda each: each.socket in ready or each.monitor in ready)
        if now >= self._look_at:
            begun = time.monotonic()
            self._see()
            self._look_at = begun + max(LOOK, (time.monotonic() - begun) / SHARE)
        self._act(now)
        self._keep(now)
        self._act(now)
        self._tell()

    def _act(self, now: float) -> None:
        while actions := self.core.poll(now):
            for action in actions:
                match action:
                    case Start(key, config):
                        self._start(key, config)
                    case Stop(key):
                        self._stop(key)
                    case _:
                        self._connections.act(now, action)

    # The folder

    def _look(self) -> Sequence[Entry]:
        found = folder.look(self._root)
        for words in found.odd:
            if words not in self._odd:
                log.warning(words)
        self._odd = found.odd
        return found.entries

    def _see(self) -> None:
        try:
            self.core.seen(self._look())
        except ConfigError as error:  # such as a network drive that has gone for a while
            if str(error) not in self._odd:
                log.warning("what the repository had before stays: %s", error)
            self._odd = [str(error)]

    def _load_first(self) -> None:
        for key, row in self.core.rows.items():
            try:
                wanted = self._read(folder.is_wanted, row.entry)
                why = self.core.load(key) if wanted else ""
            except ConfigError as error:
                why = row.reason = str(error)
            if why:
                log.error("not loaded model=%s: %s", full_name(*key), why)

    def _read(self, read: Callable[[Entry], T], entry: Entry) -> T:
        """Read a model's file; what goes wrong there, expected or not, is that model's alone."""
        try:
            return read(entry)
        except ConfigError:
            raise
        except Exception as error:
            log.exception("cannot read %s", entry.place)
            kind = type(error).__name__
            words = f"{entry.place} cannot be read: {kind}; the host's log has the traceback"
            raise ConfigError(words) from error

    # Processes

    def _start(self, key: Key, config: WorkerConfig) -> None:
        name = full_name(*key)
        log.info(logs.event("loading", model=name))
        start = partial(Process, "zstreamer.worker.supervisor", config)
        self._slots[key] = ProcessSlot(f"workers model={name}", start, FINAL)
        self._graces[key] = config.drain_grace

    def _stop(self, key: Key) -> None:
        log.info(logs.event("unloading", model=full_name(*key)))
        self._stopping.add(key)
        if (process := self._slots[key].process) is not None:
            process.terminate()

    def _keep(self, now: float) -> None:
        for key, slot in list(self._slots.items()):
            if key in self._stopping:
                slot.ended()
                if slot.process is None:
                    self._ended(key, slot.code)
                continue
            try:
                slot.keep(now)
            except Exception as error:  # no memory for now, perhaps; the other models go on
                log.exception("cannot start the workers of model=%s", full_name(*key))
                self._ended(key, None, f"its workers could not be started: {error}")
                continue
            if slot.done:
                self._ended(key, slot.code)
            elif slot.process is None and slot.code is not None:
                how = f"its workers have ended with exit code {of_child(slot.code)}"
                self.core.troubled(key, f"{how} and are started again; see the host's log")
            elif slot.is_healthy(now):
                self.core.troubled(key, "")

    def _ended(self, key: Key, code: int | None, how: str = "") -> None:
        del self._slots[key], self._graces[key]
        self._stopping.discard(key)
        if not how and code is not None:
            how = f"its workers have ended with exit code {of_child(code)}; see the host's log"
        self.core.ended(key, how)
        row = self.core.rows[key]
        log.info(logs.event(row.state.value, model=full_name(*key), why=row.reason))

    def _tell(self) -> None:
        """Log what has become of the brokers."""
        for link in self.core.links:
            words = self._told.get(link, "")
            if link.state is LinkState.READY:
                words = "connected"
            elif link.refusal is not None:
                words = f"refused: {link.refusal.message}"
                if isinstance(link.refusal, BadRequest):
                    words += " (a broker of an older release knows no repositories: upgrade it)"
            elif words == "connected":
                words = "lost, reconnecting"
            if words != self._told.get(link, ""):
                self._told[link] = words
                words, _, why = words.partition(": ")
                level = logging.INFO if words == "connected" else logging.WARNING
                log.log(level, logs.event(f"repository {words}", why=why, broker=link.address))


def run(config: WorkerConfig, stop: StopRequests, owner: Owner | None = None) -> int:
    """Offer the models of ``config.repository`` until SIGINT or SIGTERM, then drain them."""
    try:
        host = Host(config)
    except ConfigError as error:
        log.error("%s", error)  # noqa: TRY400  # the reason is in the line
        return ExitCode.USAGE
    return host.run(stop, owner)
