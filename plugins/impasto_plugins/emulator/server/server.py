"""Runs the emulator: in a loop of the caller's, or in a thread of its own."""

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

from impasto.ext import Listener, listen
from impasto_plugins.emulator.settings import Settings
from impasto_plugins.emulator.state.charges import Charge, Record

from .app import State, make_app

_STOP_SECONDS = 2.0
_log = logging.getLogger("impasto.emulator")


def _is_ours(record: logging.LogRecord) -> bool:
    """Not what a client did: one that left, or bytes that are no HTTP, which aiohttp would quote, keys and all."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, ConnectionError | HttpProcessingError)


_log.addFilter(_is_ours)


class Emulator:
    """An emulator of a provider, on loopback. ``async with Emulator() as emulator:`` serves at ``emulator.url``."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._state = State.new(self.settings)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it is served: scheme, host and port."""
        if self._runner is None:
            raise RuntimeError("the emulator is not running")
        host, port = self._address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def charges(self) -> Sequence[Charge]:
        """What was charged, oldest first."""
        return list(self._state.account.charges)

    @property
    def requests(self) -> Sequence[Record]:
        """What was asked for, oldest first."""
        return list(self._state.account.requests)

    @property
    def credits(self) -> float:
        """How many credits were charged in all."""
        return self._state.account.credits

    @property
    def lockouts(self) -> int:
        """How often a key was locked out for asking too fast."""
        return self._state.account.rates.lockouts

    def fault(self, kind: str, **options: object) -> None:
        """Makes exchanges fail from now on; see ``faults``. Raises ValueError."""
        self._state.faults.add({"kind": kind, **options})

    def clear_faults(self) -> None:
        """Ends all faults."""
        self._state.faults.reset()

    def reset(self) -> None:
        """Forgets requests, charges, jobs, faults and rates."""
        self._state.reset()

    async def __aenter__(self) -> Self:
        app = await asyncio.to_thread(make_app, self._state)
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
            bound = listen(settings.host, settings.port)
        except BaseException:
            await runner.cleanup()
            raise
        self._address = bound.getsockname()
        self._listener = Listener([bound], server, _log)
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
def serve(settings: Settings | None = None) -> Iterator[Emulator]:
    """Runs an emulator in a thread, so that code with a loop and code without can use it."""
    emulator = Emulator(settings)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        async with emulator:
            stop = asyncio.Event()
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # whatever ends it, whoever waits for the start must hear of it
            if started.done():
                raise
            started.set_exception(error)  # raised where the start is waited for

    worker = threading.Thread(target=thread, name="impasto-emulator", daemon=True)
    worker.start()
    loop, stop = started.result()
    try:
        yield emulator
    finally:
        loop.call_soon_threadsafe(stop.set)
        worker.join()
