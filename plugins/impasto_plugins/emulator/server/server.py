"""Runs the emulator in the caller's loop, or in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from impasto_plugins.concurrency import Listener, listen
from impasto_plugins.emulator.settings import EmulatorSettings
from impasto_plugins.emulator.state.charges import Charge, LogEntry

from .app import EmulatorState, create_app

_STOP_SECONDS = 2.0
_log = logging.getLogger("impasto.emulator")


def _is_ours(record: logging.LogRecord) -> bool:
    """Return False for a client's fault: one that disconnected, or invalid HTTP, which aiohttp quotes with its keys."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, ConnectionError | HttpProcessingError)


_log.addFilter(_is_ours)


class Emulator:
    """An emulator of the providers on loopback. ``async with Emulator() as emulator:`` serves at ``emulator.url``."""

    def __init__(self, settings: EmulatorSettings | None = None) -> None:
        self.settings = settings or EmulatorSettings()
        self._state = EmulatorState.create(self.settings)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Its address: scheme, host and port."""
        if self._runner is None:
            raise RuntimeError("the emulator is not running")
        host, port = self._address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def charges(self) -> Sequence[Charge]:
        """All charges, oldest first."""
        return list(self._state.charges.charges)

    @property
    def requests(self) -> Sequence[LogEntry]:
        """All requests, oldest first."""
        return list(self._state.charges.requests)

    @property
    def credits(self) -> float:
        """The sum of all charges in credits."""
        return self._state.charges.credits

    @property
    def lockouts(self) -> int:
        """The number of times that a key was locked for too many requests."""
        return self._state.charges.rates.lockouts

    def fault(self, kind: str, **options: object) -> None:
        """Make exchanges fail from now on; see ``faults.rules``. Raises ValueError."""
        self._state.fault_rules.add({"kind": kind, **options})

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._state.fault_rules.reset()

    def reset(self) -> None:
        """Forget requests, charges, jobs, faults and rates."""
        self._state.reset()

    async def __aenter__(self) -> Self:
        app = await asyncio.to_thread(create_app, self._state)
        settings = self.settings
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=_log,
            keepalive_timeout=settings.keep_alive_seconds,
            shutdown_timeout=_STOP_SECONDS,
        )
        await runner.setup()
        server = runner.server
        assert server is not None  # noqa: S101 - set up just now
        try:
            sock = listen(settings.host, settings.port)
        except BaseException:
            await runner.cleanup()
            raise
        self._address = sock.getsockname()
        self._listener = Listener([sock], server, _log)
        self._listener.start()
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            self._listener.close()
            await runner.cleanup()
        await self._state.jobs.aclose()


@contextmanager
def serve(settings: EmulatorSettings | None = None) -> Iterator[Emulator]:
    """Run an emulator in a thread, for code with and without a loop."""
    emulator = Emulator(settings)
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        async with emulator:
            stop = asyncio.Event()
            ready.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # any error of the start is raised by the caller, who waits for it
            if ready.done():
                raise
            ready.set_exception(error)

    thread_of_server = threading.Thread(target=thread, name="impasto-emulator", daemon=True)
    thread_of_server.start()
    loop, stop = ready.result()
    try:
        yield emulator
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread_of_server.join()
