"""The gateway: an HTTP server in front of a cluster, in as many processes as asked for.

    gateway ── one listening socket each, over a pipe that ties their lives to it ──> servers

It binds, starts the servers, starts again those that die, and hands on requests to stop. It carries
no request itself.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from typing import Final

from zstreamer.config import GatewayChildConfig, GatewayConfig, stays_on_machine
from zstreamer.keys.credentials import given
from zstreamer.keys.ring import Role
from zstreamer.setting import ConfigError
from zstreamer.system import logs, slots
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import Owner, Process, owned, read_config
from zstreamer.system.signals import StopRequests
from zstreamer.system.slots import ProcessSlot
from zstreamer.web.gateway.tls import Certificates

log = logging.getLogger("zstreamer.web.gateway.parent")  # run as __main__

METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder through which processes share their metrics."""

NEEDED: Final = ("httptools", "orjson")

FOLDER_FLAG: Final = "--metrics-folder"
"""Tells a server which folder to remove if the gateway cannot do it any more."""

DRAIN_MARGIN: Final = 0.2
"""Seconds that a server gets, beyond the time for its requests, to end by itself."""


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
    _check(config)
    try:
        listeners = listen(config)
        probes = listen(config, config.probe_port) if config.probe_port else []
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        log.error("cannot bind http://%s: %s", config.address, reason)  # noqa: TRY400  # one line
        return ExitCode.UNREACHABLE
    brokers = ",".join(config.broker)
    scheme = "https" if config.certificate else "http"
    place = f"{scheme}://{config.address}"
    log.info(logs.event(f"serving {place}", broker=brokers, processes=len(listeners)))
    with StopRequests() as stop, _metrics_of(config.processes) as env:
        pairs = zip_longest(listeners, probes)
        servers = [_slot(config, each, probe, env) for each, probe in pairs]
        slots.serve(servers, stop, owner)
        for listener in (*listeners, *probes):
            listener.close()
        codes = slots.drain(servers, stop, owner, config.drain_grace + DRAIN_MARGIN)
    return ExitCode.NOT_DRAINED if any(codes) else ExitCode.OK


def _check(config: GatewayConfig) -> None:
    """Find what would end every server at once, and say what a careful person wants to know.

    Raises ConfigError where keys, tokens or certificates cannot be used.
    """
    from zstreamer.web.backend import guard  # needs what `check_installed` looks for

    given(config.keys or "", Role.CLIENT)
    asks = guard(config) is not None
    if config.certificate:
        Certificates(config).context()
    if stays_on_machine(f"tcp://{config.address}"):
        return
    if not (asks or config.client_ca):
        log.warning(
            "anyone who reaches %s may call the models: give --api-keys to ask for tokens",
            config.address,
        )
    elif asks and not config.certificate:
        log.warning(
            "tokens come in clear text to %s: give --certificate, or use a proxy that speaks TLS",
            config.address,
        )


def _slot(
    config: GatewayConfig,
    listener: socket.socket,
    probe: socket.socket | None,
    env: Mapping[str, str],
) -> ProcessSlot:
    """The place of one server.

    Its socket outlives the processes, so that clients wait, and are not refused, while another is
    started in the place of one that died.
    """
    start = partial(
        Process,
        "zstreamer.web.gateway.child",
        GatewayChildConfig(
            **asdict(config),
            listener=listener.fileno(),
            probe_listener=probe.fileno() if probe else 0,
        ),
        args=[FOLDER_FLAG, env[METRICS]] if METRICS in env else [],
        env=env,
        pass_fds=tuple(each.fileno() for each in (listener, probe) if each),
    )
    return ProcessSlot("gateway process", start, after=partial(_forget_metrics, env))


def _forget_metrics(env: Mapping[str, str], pid: int) -> None:
    if METRICS in env:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid, env[METRICS])  # type: ignore[no-untyped-call]


def listen(config: GatewayConfig, port: int = 0) -> list[socket.socket]:
    """Bind and listen: a socket for each process, among which Linux deals out connections.

    port: in place of the configuration's own.

    Raises:
        OSError: the address is taken, or is not this machine's.
    """
    place = (config.host, port or config.port)
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


def main() -> int:
    """Run the gateway that another program of ours started."""
    config, owner = read_config(GatewayConfig)
    logs.start(config.log_level, config.log_format)
    return run(config, owner)


if __name__ == "__main__":
    sys.exit(main() if owned() else "started by other programs only: use `zstreamer gateway`")
