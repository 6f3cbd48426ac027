"""A gateway in the running loop: serves, takes up another configuration, and ends without losing what is paid for."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import ClientSession, web

from impasto import Client
from impasto.ext import Listener, is_loopback, listen

from .api import jobs
from .app import App
from .calls import budgets
from .calls.runtime import Setup, data_folder
from .config.model import Config, Mistakes, check_bind
from .http.connection import Server
from .idempotency.coordinator import Repeats
from .idempotency.in_flight import Flight
from .idempotency.store import Row
from .storage.database import UNWRITABLE, Data
from .telemetry import metrics as m
from .telemetry.access_log import to_logger
from .telemetry.instrumentation import Observer
from .telemetry.loop_monitor import Watchdog
from .telemetry.metrics import Metrics
from .telemetry.request_record import Seen
from .telemetry.tracing import Traces

_log = logging.getLogger("impasto.gateway")

CANCEL_SECONDS = 0.5
"""How long what was not drained gets to end, once and once more when it is cancelled."""

SWEEP_SECONDS = 300.0
BACKLOG = 1024


class Gateway:
    """``async with Gateway(config) as gateway:`` serves at ``gateway.url``. Port 0 takes any.

    ``bound`` is a socket that listens already, in the place of ``host`` and ``port``. ``shared``: the folder of the
    numbers of several workers. ``log`` takes what the access log tells of each request; ``before`` is awaited before
    the first comes.
    """

    def __init__(
        self,
        config: Config,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        no_auth: bool = False,
        bound: socket.socket | None = None,
        shared: Path | None = None,
        log: Callable[[Seen], object] = to_logger,
        before: Callable[[Gateway], Awaitable[None]] | None = None,
    ) -> None:
        self._config = config
        self._host, self._port, self._no_auth, self._bound = host, port, no_auth, bound
        self._shared, self._log, self._before = shared, log, before
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where it is served: scheme, host and port."""
        return self._app.base_url

    async def __aenter__(self) -> Self:
        check_bind(self._config, self._host, no_auth=self._no_auth)
        async with AsyncExitStack() as stack:
            self._client = await stack.enter_async_context(Client(plugins=self._config.plugins))
            self.metrics = Metrics(self._shared)
            stack.callback(self.metrics.close)
            self._observer = Observer(self.metrics, await asyncio.to_thread(Traces.wanted), self._log)
            self._uploads = await stack.enter_async_context(ClientSession(trust_env=True))  # a proxy before S3
            setup = await self._set_up(self._config)
            self._observer.sample = self._sample
            self._data = Data(data_folder(self._config))
            stack.push_async_callback(self._data.aclose)
            await self._data.open()
            self._repeats = Repeats(self._data, self._resume)
            stack.push_async_callback(self._repeats.aclose)
            self._app = App(setup, self._data, self._repeats, self._observer, local=is_loopback(self._host))
            stack.push_async_callback(self._app.aclose)
            await self._repeats.open()
            if self._before is not None:
                await self._before(self)
            self._server = Server(self._app, lambda: self._app.setup.config.general, self._observer)
            self._runner = web.ServerRunner(self._server, shutdown_timeout=CANCEL_SECONDS)
            await self._runner.setup()
            stack.push_async_callback(self._runner.cleanup)
            stack.push_async_callback(self._repeats.settle)  # before connections are closed, which hides what was read
            bound = self._bound or listen(self._host, self._port, BACKLOG)
            self._app.base_url = _url(bound.getsockname())
            self._listener = Listener([bound], self._server, _log)
            stack.callback(self._listener.close)
            self._listener.start()
            self._watchdog = await stack.enter_async_context(Watchdog(self._sample))
            for work in (self._sweep(), self._repeats.watch(), self._app.batches.watch(), self._server.look_after()):
                stack.callback(asyncio.create_task(work).cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def take_up(self, config: Config) -> None:
        """Serves by another configuration; what runs ends with the old one. Raises ConfigError, changing nothing."""
        check_bind(config, self._host, no_auth=self._no_auth)
        fixed = {
            "general_settings.data_dir": data_folder(config) != self._data.folder,
            "batches.folder": config.batches.folder != self._config.batches.folder,
            "general_settings.plugins": config.plugins != self._config.plugins,
        }
        if changed := [name for name, is_changed in fixed.items() if is_changed]:
            found = [(config.lines.get(name, 0), f"{name} changes with a new start only") for name in changed]
            raise Mistakes(config.source, found)
        self._app.take_up(await self._set_up(config))

    async def _set_up(self, config: Config) -> Setup:
        return await Setup.of(config, self._client, self._observer, self._uploads, no_auth=self._no_auth)

    async def drain(self) -> bool:
        """Takes nothing new and waits for what runs; False where that took longer than it may."""
        self._app.draining = True
        self._app.batches.drain()
        self._listener.close()
        try:
            async with asyncio.timeout(self._app.setup.config.general.drain_seconds):
                await self._app.idle()
                await self._repeats.settle()
        except TimeoutError:
            return False
        return True

    def _resume(self, row: Row, flight: Flight) -> None:
        self._app.spawn(jobs.resume(self._app.setup, self._repeats, row, flight))

    async def _sweep(self) -> None:
        """Removes what has expired, from time to time."""
        data = self._data
        while True:
            folder = self._app.setup.folder
            await asyncio.to_thread(folder.remove_expired)
            await asyncio.to_thread(self._app.setup.unread.remove_expired)
            with suppress(*UNWRITABLE):  # whoever needs it says so
                await data.write(lambda db: budgets.sweep(db, data.clock()))
                await data.write(self._repeats.kept.remove_expired)
            await self._app.batches.remove_expired()
            await asyncio.sleep(min(folder.seconds, SWEEP_SECONDS))

    def _sample(self) -> None:
        """What is so now, for the metrics."""
        metrics, app = self.metrics, self._app
        metrics.set(m.LAG, value=self._watchdog.lag)
        metrics.set(m.BYTES, value=app.flow.bytes)
        metrics.set(m.CONNECTIONS, value=len(self._server.open))
        for model in app.setup.models.values():
            for deployment in model.deployments:
                metrics.set(m.RESTING, model.name, deployment.name, value=deployment.is_resting())


def _url(address: tuple[str, int]) -> str:
    host, port = address[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what is bound to all is told as loopback
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
