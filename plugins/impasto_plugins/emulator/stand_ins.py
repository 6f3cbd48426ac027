"""The stand-ins of providers: servers that plugins declare in the entry-point group ``impasto.emulators``."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import cast
from urllib.parse import urlsplit

from impasto import BrokenPlugin, ConfigError, ImpastoError, Registry, UnknownOperation
from impasto.ext import EMULATORS, check_base_url, describe_error, is_loopback, pass_interrupt

from .server.server import Emulator

_log = logging.getLogger("impasto")

Serve = Callable[[], AbstractAsyncContextManager[str]]
"""Serves a stand-in as long as its context lasts, and yields its base URL."""


@asynccontextmanager
async def serve_emulator() -> AsyncIterator[str]:
    """Serve the built-in emulator, which stands in for stability and bedrock."""
    async with Emulator() as emulator:
        yield emulator.url


class _StandIn:
    """One running server. Its context is entered and left in a task of its own, as some contexts demand."""

    def __init__(self, name: str, serve: Serve) -> None:
        self.url = ""
        self.failure: ImpastoError | None = None
        self._name, self._serve = name, serve
        self._is_ready, self._stop = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"impasto-emulator-{name}")

    async def started(self) -> str:
        await self._is_ready.wait()
        if self.failure is not None:
            raise self.failure
        return self.url

    async def aclose(self) -> None:
        self._stop.set()
        if not self._is_ready.is_set():
            self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            async with self._serve() as url:
                self.url = _check_url(url)
                self._is_ready.set()
                await self._stop.wait()
        except asyncio.CancelledError:  # by aclose, or at the end of the loop
            self.failure = BrokenPlugin(f"the emulator of {self._name} (impasto.emulators) was stopped")
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            pass_interrupt(error)
            reason = f"the emulator of {self._name} (impasto.emulators) failed: {describe_error(error)}"
            if self._is_ready.is_set():
                _log.error("%s", reason)
            else:
                self.failure = BrokenPlugin(f"{reason}; nothing was sent")
        finally:
            self._is_ready.set()


def _check_url(url: object) -> str:
    """Return the base URL of a stand-in. Another machine could be the provider itself, which charges."""
    base_url = check_base_url(url, "its base URL")
    if not is_loopback(urlsplit(base_url).hostname or ""):
        raise ConfigError("its base URL must be on this machine, such as http://127.0.0.1:8008")
    return base_url


class StandIns:
    """Stand-ins by provider, started when first needed. Providers that declare one function share its server.

    ``serves``: functions to call instead of declared ones.
    """

    def __init__(self, serves: Mapping[Serve, Serve] | None = None) -> None:
        self._serves = serves or {}
        self._running: dict[object, _StandIn] = {}

    async def url(self, provider: str, registry: Registry, *, model: str | None = None) -> str:
        """Return the base URL of the stand-in that is declared for a model, or else for its provider.

        Raises ConfigError if there is none, and BrokenPlugin.
        """
        try:
            serve = cast("Serve", await asyncio.to_thread(_load, registry, model, provider))
        except UnknownOperation:
            have = ", ".join(registry.names(EMULATORS)) or "no provider"
            raise ConfigError(
                f"there is no emulator of {provider}, only of {have}; its plugin can declare one in {EMULATORS}, "
                "or give the address of a server of your own as api_base; nothing was sent"
            ) from None
        if not callable(serve):
            raise BrokenPlugin(f"the emulator of {provider} must be a function, not {type(serve).__name__}")
        if serve not in self._running:
            self._running[serve] = _StandIn(provider, self._serves.get(serve, serve))
        try:
            return await self._running[serve].started()
        except ImpastoError:
            self._running.pop(serve, None)  # the next call tries again
            raise

    async def aclose(self) -> None:
        """Stop all servers."""
        for stand_in in self._running.values():
            await stand_in.aclose()


def _load(registry: Registry, model: str | None, provider: str) -> object:
    """Return what the model declares, such as one on a provider of another distribution, or else the provider."""
    name = model if model is not None and model in registry.names(EMULATORS) else provider
    return registry.load(EMULATORS, name, object)


@contextmanager
def serve_in_thread() -> Iterator[Callable[[str], str]]:
    """Yield a function that returns the base URL of a provider's stand-in, which runs in a thread of its own."""
    stand_ins, loop = StandIns(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="impasto-emulators", daemon=True)
    thread.start()

    def url(provider: str) -> str:
        return asyncio.run_coroutine_threadsafe(stand_ins.url(provider, Registry()), loop).result()

    try:
        yield url
    finally:
        asyncio.run_coroutine_threadsafe(stand_ins.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
