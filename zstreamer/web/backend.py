"""What stands behind the async apps: the interface, and for each event loop a client.

    app ── Request ──> backend.answer ── Predict ──> client      (await, one future a request)
    app <── Response ──────┘   └──────── Look ─────> directory

Hang-ups are watched for only where an answer takes long: what has begun by then cannot be saved,
and a watcher for each request would cost as much as the rest of it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from zstreamer.client.aio import AsyncClient
from zstreamer.client.calls import Call
from zstreamer.config import GatewayConfig
from zstreamer.errors import Cancelled, ZStreamerError
from zstreamer.keys.credentials import VARIABLE
from zstreamer.keys.folder import HTTP
from zstreamer.keys.reader import CallersReader
from zstreamer.metrics import ClientCollector
from zstreamer.sources import resolve
from zstreamer.tracing.context import Under
from zstreamer.web.api.guard import Guard
from zstreamer.web.api.interface import Interface
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.steps import Look, Order, Predict, Request, Response
from zstreamer.web.directory import Directory
from zstreamer.web.operator import Operator
from zstreamer.web.tenants import ByTenant

OnDisconnect: TypeAlias = Callable[[], Awaitable[object]]
"""Returns an awaitable that ends when the caller of a request disconnects."""

WATCH_AFTER = 0.05
"""Seconds without an answer after which a caller is watched."""


class Backend:
    """Answers requests in whatever event loop they come; clients are made at the first in each.

    Args:
        to: the brokers' client addresses, separated by commas, or the whole configuration of a
            gateway; where None, ZSTREAMER_* variables and the file of ZSTREAMER_CONFIG say it.

    Raises:
        ConfigError: a setting has no usable value.
    """

    def __init__(self, to: str | GatewayConfig | None) -> None:
        config = self.config = configured(to)
        header = config.tenant_header or ""
        token = config.operator_token
        self.interface = Interface(limits(config), config.model, guard(config), header, token)
        self.operator = Operator(config.broker_url, token)
        self.directory = Directory(list(config.broker), keys=config.keys or "")
        self._collector = ClientCollector(registry=self.interface.registry)
        self._clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, ByTenant[AsyncClient]
        ] = weakref.WeakKeyDictionary()
        self._closing: set[asyncio.Future[None]] = set()  # else they may be collected before

    def client(self) -> AsyncClient:
        """Return the client of the running loop, for requests of no tenant."""
        return self.clients().of("")

    def clients(self) -> ByTenant[AsyncClient]:
        """Return the clients of the running loop."""
        loop = asyncio.get_running_loop()
        clients = self._clients.get(loop)
        if clients is None:
            clients = self._clients[loop] = ByTenant(self._new(""), self._new, self._let_go)
        return clients

    def _new(self, tenant: str) -> AsyncClient:
        config = self.config
        client = AsyncClient(
            config.broker,
            connect_timeout=config.connect_timeout,
            keys=config.keys or "",
            tenant=tenant,
        )
        self._collector.add(client)
        return client

    def _let_go(self, client: AsyncClient) -> None:
        closing = asyncio.ensure_future(client.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        closing.add_done_callback(lambda _: self._collector.retire(client))

    async def close(self) -> None:
        """Close the clients of the running loop; a later request makes others."""
        clients = self._clients.pop(asyncio.get_running_loop(), None)
        for client in clients.all() if clients is not None else ():
            await client.close()

    async def answer(self, request: Request, disconnected: OnDisconnect) -> Response:
        """Return the response to a request; cancelled, it gives up the items."""
        step = self.interface.begin(request)
        while not isinstance(step, Response):
            try:
                answer: Any = await self._ask(step, disconnected)
            except ZStreamerError as error:
                step = step.failed(error)
            except BaseException:
                step.failed(Cancelled("the caller disconnected"))
                raise
            else:
                step = step.answered(answer)
        return step

    async def _ask(self, step: Predict | Look | Order, disconnected: OnDisconnect) -> object:
        if isinstance(step, Predict):
            return await self._predict(step, disconnected)
        if isinstance(step, Order):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, self.operator.give, step.action, step.name)
        if step.wait:
            await asyncio.sleep(step.wait)
        return await self.directory.aget(step.oldest)

    async def read(self, body: Coroutine[Any, Any, bytes]) -> bytes:
        """Await a body for as long as a request may take to come.

        Raises:
            TimeoutError: its sender is too slow.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # tells mypy
        loop = asyncio.get_running_loop()
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            task.cancel()

        timer = loop.call_later(self.config.read_timeout, give_up)
        try:
            return await body
        except asyncio.CancelledError:
            if not late:
                raise
            if sys.version_info >= (3, 11):
                task.uncancel()
            raise TimeoutError from None
        finally:
            timer.cancel()

    async def _predict(self, step: Predict, disconnected: OnDisconnect) -> list[object]:
        client = self.clients().of(step.tenant)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def ended(_: Call) -> None:
            if not done.done():
                done.set_result(None)

        with Under(step.trace):
            call = client.start(
                step.items,
                ended,
                model=step.model,
                timeout=step.timeout,
                priority=step.priority,
                return_exceptions=step.return_exceptions,
            )
        watch = _Watch(loop, client, call, disconnected)
        try:
            await done
        except BaseException:
            client.cancel(call)
            raise
        finally:
            watch.close()
        return call.results()


def limits(config: GatewayConfig) -> Limits:
    """What one request may ask for."""
    return Limits(
        max_body=config.max_body,
        max_items=config.request_items,
        timeout=config.timeout,
        max_timeout=config.max_timeout,
    )


def guard(config: GatewayConfig) -> Guard | None:
    """What asks callers for tokens; None where they need none.

    Raises ConfigError where the folder of tokens cannot be used.
    """
    folder = config.api_keys
    if folder is None and config.keys is not None and any(Path(config.keys, HTTP).glob("*.key")):
        folder = config.keys
    if folder is None:
        return None
    return Guard(CallersReader(folder), () if config.probe_port else config.open)


def configured(to: str | Sequence[str] | GatewayConfig | None) -> GatewayConfig:
    """The configuration of an app, given whole or as addresses; None: from variables."""
    if isinstance(to, GatewayConfig):
        return to
    if to is not None:
        brokers = tuple(to.split(",") if isinstance(to, str) else to)
        return GatewayConfig(broker=brokers, keys=os.environ.get(VARIABLE) or None)
    file = os.environ.get("ZSTREAMER_CONFIG")
    return resolve(GatewayConfig, file=Path(file) if file else None)


class _Watch:
    """Cancels a call when its caller hangs up, if the call takes long."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: AsyncClient,
        call: Call,
        disconnected: OnDisconnect,
    ) -> None:
        self._client = client
        self._call = call
        self._hang_up = disconnected
        self._task: asyncio.Task[None] | None = None
        self._timer = loop.call_later(WATCH_AFTER, self._begin)

    def close(self) -> None:
        """The call has ended."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        await self._hang_up()
        self._client.cancel(self._call)
