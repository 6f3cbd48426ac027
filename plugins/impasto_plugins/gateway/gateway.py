"""A gateway in the running loop: start, reload, and a drain that loses nothing that is paid for."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs
from aiohttp import web

from impasto import Client
from impasto.ext import StateStore, StoredCall, is_loopback
from impasto_plugins.concurrency import Listener, listen
from impasto_plugins.middleware.shared_window import machine_state
from impasto_plugins.transports.s3 import S3Clients

from .api import jobs
from .app import App
from .bucket import open_bucket
from .calls.runtime import Runtime, data_folder
from .config.model import Config, InvalidConfig, check_bind
from .http.connection import Server
from .idempotency.coordinator import IdempotencyCoordinator
from .idempotency.in_flight import InFlightCall
from .state import open_state, state_store
from .sweep import sweep
from .telemetry import metrics as m
from .telemetry.access_log import log_request
from .telemetry.instrumentation import Observer
from .telemetry.loop_monitor import EventLoopMonitor
from .telemetry.metrics import Metrics
from .telemetry.request_record import RequestRecord
from .telemetry.tracing import Tracing

_log = logging.getLogger("impasto.gateway")

CANCEL_SECONDS = 0.5
"""Seconds for undrained calls to end, and once more after they are cancelled."""

BACKLOG = 1024

_NOT_SHARED = (
    "general_settings.state shares the records with other machines, but the images of jobs, of repeated calls and at"
    " URLs, and the contents of files and batches stay on this one; with files.s3 all machines have them"
)


class Gateway:
    """``async with Gateway(config) as gateway:`` serves at ``gateway.url``. Port 0 takes any.

    ``sock`` is a listening socket in place of ``host`` and ``port``. ``metrics_folder``: the folder of several workers'
    counters. ``log`` receives the access log's record of each request; ``on_startup`` is awaited before the first
    request.
    """

    def __init__(
        self,
        config: Config,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        no_auth: bool = False,
        sock: socket.socket | None = None,
        metrics_folder: Path | None = None,
        log: Callable[[RequestRecord], object] = log_request,
        on_startup: Callable[[Gateway], Awaitable[None]] | None = None,
    ) -> None:
        self._config = config
        self._host, self._port, self._no_auth, self._sock = host, port, no_auth, sock
        self._metrics_folder, self._log, self._on_startup = metrics_folder, log, on_startup
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Its address: scheme, host and port."""
        return self._app.base_url

    async def __aenter__(self) -> Self:
        check_bind(self._config, self._host, no_auth=self._no_auth)
        async with AsyncExitStack() as stack:
            self._state = await asyncio.to_thread(state_store, self._config)
            stack.push_async_callback(self._state.aclose)
            state = await asyncio.to_thread(self._client_state)
            self._client = await stack.enter_async_context(Client(plugins=self._config.plugins, state=state))
            self.metrics = Metrics(self._metrics_folder)
            stack.callback(self.metrics.close)
            self._observer = Observer(self.metrics, await asyncio.to_thread(Tracing.create_if_configured), self._log)
            self._s3_clients = await stack.enter_async_context(S3Clients())
            runtime = await self._create_runtime(self._config)
            self._observer.update_gauges = self._update_gauges
            await open_state(self._config, self._state)
            await open_bucket(self._config, runtime.places)
            if self._config.has_shared_state and not self._config.has_shared_contents:
                _log.warning("%s", _NOT_SHARED)
            data, places = data_folder(self._config), runtime.places
            self._idempotency = IdempotencyCoordinator(self._state, data, places.outcomes, self._resume, places.salvage)
            places.salvage.on_waiting = self._idempotency.store.uploads.wake
            stack.push_async_callback(self._idempotency.aclose)
            self._app = App(runtime, self._state, self._idempotency, self._observer, is_local=is_loopback(self._host))
            stack.push_async_callback(self._app.aclose)
            await self._idempotency.open()
            if self._on_startup is not None:
                await self._on_startup(self)
            self._server = Server(self._app, lambda: self._app.runtime.config.general, self._observer)
            self._runner = web.ServerRunner(self._server, shutdown_timeout=CANCEL_SECONDS)
            await self._runner.setup()
            stack.push_async_callback(self._runner.cleanup)
            stack.push_async_callback(
                self._idempotency.end_deliveries
            )  # before connections are closed, which hides what was read
            sock = self._sock or listen(self._host, self._port, BACKLOG)
            self._app.base_url = _base_url(sock.getsockname())
            self._listener = Listener([sock], self._server, _log)
            stack.callback(self._listener.close)
            self._listener.start()
            self._loop_monitor = await stack.enter_async_context(EventLoopMonitor(self._update_gauges))
            for work in (
                self._sweep(),
                self._idempotency.watch(),
                self._idempotency.store.uploads.run(),
                self._idempotency.watch_workers(),
                self._app.batches.watch(),
                self._server.enforce_timeouts(),
            ):
                stack.callback(asyncio.create_task(work).cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def reload(self, config: Config) -> None:
        """Use another configuration; running calls end with the old one.

        Raises ConfigError, and then changes nothing.
        """
        check_bind(config, self._host, no_auth=self._no_auth)
        fixed = {
            "general_settings.data_dir": data_folder(config) != data_folder(self._config),
            "general_settings.state": config.general.state != self._config.general.state,
            "batches.folder": config.batches.folder != self._config.batches.folder,
            "files.s3": config.has_shared_contents and config.files.s3 != self._config.files.s3,
            "general_settings.plugins": config.plugins != self._config.plugins,
        }
        if changed := [name for name, is_changed in fixed.items() if is_changed]:
            found = [
                (config.lines.get(name, 0), f"{name} can't be changed by a reload; restart the gateway")
                for name in changed
            ]
            raise InvalidConfig(config.source, found)
        runtime = await self._create_runtime(config)
        await open_bucket(config, runtime.places)
        places = attrs.evolve(runtime.places, salvage=self._app.runtime.places.salvage)  # whose files may wait
        self._app.reload(attrs.evolve(runtime, places=places))

    async def _create_runtime(self, config: Config) -> Runtime:
        parts = self._client, self._observer, self._s3_clients
        return await Runtime.create(config, *parts, state=self._state, no_auth=self._no_auth)

    async def drain(self) -> bool:
        """Accept nothing new and wait for running calls; return False if they took too long."""
        self._app.is_draining = True
        self._app.batches.drain()
        self._listener.close()
        try:
            async with asyncio.timeout(self._app.runtime.config.general.drain_seconds):
                await self._app.wait_idle()
                await self._idempotency.flush_deliveries()
        except TimeoutError:
            return False
        return True

    def is_idle_after_work(self) -> bool:
        """Return True if no request holds memory, and some did since the last time that this was True."""
        memory = self._app.memory
        is_over = memory.was_used and not memory.used_bytes
        if is_over:
            memory.was_used = False
        return is_over

    def _client_state(self) -> StateStore | str | Path | None:
        """Return what has the rate windows: the store of a URL, or a folder of the machine, if it can be used."""
        chosen = self._config.general.state
        if chosen is None:
            return machine_state()
        return self._state if "://" in chosen else chosen

    def _resume(self, row: StoredCall, call: InFlightCall) -> None:
        self._app.spawn(jobs.resume_job(self._app, row, call))

    async def _sweep(self) -> None:
        """Delete expired data periodically."""
        while True:
            app = self._app
            await asyncio.sleep(await sweep(app.runtime, self._state, self._idempotency.store, app.batches))

    def _update_gauges(self) -> None:
        """Return the current gauges for the metrics."""
        metrics, app = self.metrics, self._app
        metrics.set(m.LAG, value=self._loop_monitor.lag)
        metrics.set(m.BYTES, value=app.memory.used_bytes)
        metrics.set(m.CONNECTIONS, value=len(self._server.open))
        for model in app.runtime.models.values():
            for deployment in model.deployments:
                metrics.set(m.COOLDOWN, model.name, deployment.name, value=deployment.is_cooling_down())


def _base_url(address: tuple[str, int]) -> str:
    host, port = address[:2]
    public_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a bind to all addresses is reported as loopback
    return f"http://[{public_host}]:{port}" if ":" in public_host else f"http://{public_host}:{port}"
