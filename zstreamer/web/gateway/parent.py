"""The gateway: an HTTP server in front of a cluster, in as many processes as asked for.

    gateway ── one listening socket each, over a pipe that ties their lives to it ──> servers

It binds, starts the servers, starts again those that die, and hands on requests to stop. It carries
no request itself.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import select
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Final

from zstreamer.config import GatewayChildConfig, GatewayConfig
from zstreamer.setting import ConfigError
from zstreamer.system import logs
from zstreamer.system.exitcodes import ExitCode, of_child
from zstreamer.system.process import Owner, Process, owned, read_config
from zstreamer.system.signals import StopRequests

log = logging.getLogger("zstreamer.web.gateway.parent")  # run as __main__

METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder through which processes share their metrics."""

NEEDED: Final = ("httptools", "orjson", "prometheus_client")

FOLDER_FLAG: Final = "--metrics-folder"
"""Says to a server which folder is to go if the gateway cannot see to it any more."""

GLANCE: Final = 0.2
"""Seconds between two looks at the servers."""

HEALTHY: Final = 5.0
"""Seconds after which a server's start counts as a success."""

BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 10.0
"""Seconds before a server that died is started again, doubling while it dies soon."""


class Slot:
    """One server's place: its socket, and the process that serves it now.

    The socket outlives the process, so that clients wait, and are not refused, while another is
    started in its place.
    """

    def __init__(
        self, config: GatewayConfig, listener: socket.socket, env: Mapping[str, str]
    ) -> None:
        self.listener = listener
        self.code = 0
        self.process: Process | None = None
        self._config = GatewayChildConfig(**asdict(config), listener=listener.fileno())
        self._env = env
        self._args = [FOLDER_FLAG, env[METRICS]] if METRICS in env else []
        self._backoff = BACKOFF
        self._started = 0.0
        self._start_at = 0.0

    def check(self, now: float) -> None:
        """Start the server where none runs; note where it has ended."""
        if self.process is None:
            if now >= self._start_at:
                self.process = Process(
                    "zstreamer.web.gateway.child",
                    self._config,
                    args=self._args,
                    env=self._env,
                    pass_fds=(self.listener.fileno(),),
                )
                self._started = now
        elif self.ended():
            self._backoff = BACKOFF if now - self._started > HEALTHY else 2 * self._backoff
            self._start_at = now + min(self._backoff, MAX_BACKOFF)
            log.warning("server died code=%d, starting it again", self.code)

    def ended(self) -> bool:
        """Whether no process runs; what ended is cleared away."""
        if self.process is not None and (code := self.process.poll()) is not None:
            self.code = code
            self.process.close()
            if METRICS in self._env:
                from prometheus_client.multiprocess import mark_process_dead

                mark_process_dead(self.process.pid, self._env[METRICS])  # type: ignore[no-untyped-call]
            self.process = None
        return self.process is None


def check_installed() -> None:
    """Raise ConfigError where a package that the gateway needs is not installed."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"the gateway needs {', '.join(absent)}, which are not installed: "
            "pip install 'zstreamer[gateway]'"
        )


def run(config: GatewayConfig, owner: Owner | None = None) -> int:
    """Serve until SIGINT or SIGTERM, then drain; return the program's exit code.

    The first signal stops accepting and waits up to ``drain_grace`` seconds for open requests,
    the second ends at once. Where ``owner`` is given, its death ends the gateway at once.

    """
    try:
        listeners = listen(config)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        log.error("cannot bind http://%s: %s", config.address, reason)  # noqa: TRY400  # one line
        return ExitCode.UNREACHABLE
    brokers = ",".join(config.broker)
    log.info("serving http://%s broker=%s processes=%d", config.address, brokers, len(listeners))
    with StopRequests() as stop, _metrics_of(config.processes) as env:
        slots = [Slot(config, each, env) for each in listeners]
        watched: list[StopRequests | Owner] = [stop] if owner is None else [stop, owner]
        while not (stop.requests or _gone(owner)):
            for slot in slots:
                slot.check(time.monotonic())
            select.select(watched, [], [], GLANCE)
        return _drain(slots, stop, config.drain_grace, owner)


def listen(config: GatewayConfig) -> list[socket.socket]:
    """Bind and listen: a socket for each process, among which Linux deals out connections.

    Raises:
        OSError: the address is taken, or is not this machine's.
    """
    place = (config.host, config.port)
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    if config.processes == 1 or sys.platform != "linux":
        shared = socket.create_server(place, family=family, backlog=config.backlog)
        return [shared] + [shared.dup() for _ in range(config.processes - 1)]
    # Sockets that share a port could also join another gateway's; this one could not.
    socket.create_server(place, family=family).close()
    return [
        socket.create_server(place, family=family, backlog=config.backlog, reuse_port=True)
        for _ in range(config.processes)
    ]


@contextmanager
def _metrics_of(processes: int) -> Iterator[dict[str, str]]:
    """What the servers' environment holds, so that each tells the metrics of all."""
    if processes == 1 or METRICS in os.environ:
        yield {}
    else:
        with tempfile.TemporaryDirectory(prefix="zstreamer-metrics-") as folder:
            yield {METRICS: folder}


def _drain(slots: Sequence[Slot], stop: StopRequests, grace: float, owner: Owner | None) -> int:
    for slot in slots:
        slot.listener.close()
    asked = 0
    end = time.monotonic() + grace + GLANCE
    while not all(slot.ended() for slot in slots):
        late = time.monotonic() > end or _gone(owner)
        for process in [slot.process for slot in slots if slot.process is not None]:
            if late:
                process.kill()
            elif stop.requests > asked:
                process.terminate()
        asked = stop.requests
        select.select([stop], [], [], GLANCE / 10)
    codes = [of_child(slot.code, stopped=True) for slot in slots]
    return ExitCode.NOT_DRAINED if any(codes) else ExitCode.OK


def _gone(owner: Owner | None) -> bool:
    return owner is not None and owner.gone()


def main() -> int:
    """Run the gateway that another program of ours started."""
    config, owner = read_config(GatewayConfig)
    logs.start(config.log_level)
    return run(config, owner)


if __name__ == "__main__":
    sys.exit(main() if owned() else "started by other programs only: use `zstreamer gateway`")
