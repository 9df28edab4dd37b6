"""One process of the gateway: accepts connections of a socket it was given, until told to stop.

gateway ── socket, configuration, SIGTERM ──> child: asyncio connections ──> client ──> broker
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import shutil
import socket
import ssl
import sys

from zstreamer.config import GatewayChildConfig
from zstreamer.setting import ConfigError
from zstreamer.system import logs
from zstreamer.system.exitcodes import ExitCode
from zstreamer.system.process import Owner, owned, read_config
from zstreamer.system.signals import StopRequests
from zstreamer.system.slots import GLANCE
from zstreamer.tracing import setup
from zstreamer.web.backend import Backend
from zstreamer.web.gateway.parent import FOLDER_FLAG
from zstreamer.web.gateway.tls import HANDSHAKE, Certificates
from zstreamer.web.http.asyncio_driver import AsyncioConnection, Service
from zstreamer.web.http.shared import Bounds

log = logging.getLogger("zstreamer.web.gateway.child")  # run as __main__


class GatewayChild:
    """Serves one listening socket in the running loop.

    Args:
        config: which brokers to ask, and what requests may ask for.
        listener: a bound socket.
        owner: the process that must be alive, where there is one.
    """

    def __init__(
        self, config: GatewayChildConfig, listener: socket.socket, owner: Owner | None
    ) -> None:
        self.config = config
        self._listener = listener
        self._owner = owner
        self._backend = backend = Backend(config)
        self._service = Service(
            backend.interface,
            backend.clients(),
            backend.directory,
            Bounds(config.max_body, config.keep_alive, config.read_timeout),
        )
        self._certificates = Certificates(config) if config.certificate else None
        self._probes = self._service_of(config.open) if config.probe_listener else None
        self._server: asyncio.Server | None = None

    def _service_of(self, pages: tuple[str, ...]) -> Service:
        backend, config = self._backend, self.config
        bounds = Bounds(config.max_body, config.keep_alive, config.read_timeout)
        return Service(backend.interface, backend.clients(), backend.directory, bounds, pages)

    async def _listen(self, context: ssl.SSLContext | None) -> None:
        """Accept connections; older ones go on with the certificate that they began with."""
        loop = asyncio.get_running_loop()
        before = self._server
        self._server = await loop.create_server(
            lambda: AsyncioConnection(self._service),
            sock=self._listener.dup(),
            backlog=self.config.backlog,
            ssl=context,
            ssl_handshake_timeout=None if context is None else HANDSHAKE,
        )
        if before is not None:
            before.close()

    async def _listen_anew(self, certificates: Certificates) -> None:
        try:
            context = certificates.context()
        except ConfigError as error:  # perhaps one of two files; the other will change too
            log.warning("the certificate stays as it was: %s", error)
            return
        await self._listen(context)
        log.info("the certificate was read again")

    async def _listen_for_probes(self, service: Service) -> asyncio.Server:
        listener = socket.socket(fileno=self.config.probe_listener)
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: AsyncioConnection(service), sock=listener)

    async def run(self, stop: StopRequests) -> ExitCode:
        """Serve until a request to stop, then until all connections are done."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        watched: list[StopRequests | Owner] = [stop]
        watched += [] if self._owner is None else [self._owner]
        for each in watched:
            loop.add_reader(each, woken.set)
        certificates, probes = self._certificates, self._probes
        await self._listen(certificates.context() if certificates else None)
        probing = await self._listen_for_probes(probes) if probes else None
        try:
            while not (stop.requests or self._abandoned()):
                await _either(woken, GLANCE)
                if certificates is not None and certificates.changed():
                    await self._listen_anew(certificates)
            if self._server is not None:
                self._server.close()
            self._listener.close()
            return await self._drain(stop, woken)
        finally:
            if probing is not None and probes is not None:
                probing.close()
                probes.close()
            for each in watched:
                loop.remove_reader(each)
            self._service.close()
            await self._backend.close()

    async def _drain(self, stop: StopRequests, woken: asyncio.Event) -> ExitCode:
        shared = self._service.shared
        shared.drain()
        loop = asyncio.get_running_loop()
        end = loop.time() + self.config.drain_grace
        while shared.connections and not self._abandoned():
            if stop.requests > 1 or loop.time() > end:
                log.warning("stopped with requests open=%d", len(shared.connections))
                return ExitCode.NOT_DRAINED
            await _either(woken, GLANCE / 10)
        return ExitCode.OK

    def _abandoned(self) -> bool:
        return self._owner is not None and self._owner.gone()


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, for so long at most."""
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait([waiting], timeout=seconds)
    waiting.cancel()
    event.clear()


def run(config: GatewayChildConfig, owner: Owner | None = None) -> int:
    """Serve the socket that was handed down; return the process's exit code."""
    _allow_files()
    listener = socket.socket(fileno=config.listener)
    with StopRequests() as stop:
        return asyncio.run(_serve(config, listener, owner, stop))


async def _serve(
    config: GatewayChildConfig, listener: socket.socket, owner: Owner | None, stop: StopRequests
) -> int:
    server = GatewayChild(config, listener, owner)
    gc.freeze()  # what is here now stays; collections need not look at it
    return await server.run(stop)


def _allow_files() -> None:
    """Allow as many open connections as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says "no limit", and means another
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Run the server that a gateway started."""
    config, owner = read_config(GatewayChildConfig)
    logs.start(config.log_level, config.log_format)
    try:
        setup.start(config.tracing, "zstreamer-gateway")
    except ConfigError as error:
        log.error("no tracing: %s", error)  # noqa: TRY400  # the reason is in the line
        return ExitCode.USAGE
    try:
        return run(config, owner)
    finally:
        if owner.gone() and FOLDER_FLAG in sys.argv:  # the last server to do so leaves nothing
            shutil.rmtree(sys.argv[sys.argv.index(FOLDER_FLAG) + 1], ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main() if owned() else "started by other programs only: use `zstreamer gateway`")
