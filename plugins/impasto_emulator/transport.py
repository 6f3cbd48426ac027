"""The transport ``emulator``: a client whose provider runs in its own process. Nothing leaves the machine."""

from __future__ import annotations

from contextlib import AsyncExitStack

import attrs

from impasto import WireRequest, WireResponse, hookimpl
from impasto.options import Options
from impasto_transports.https import Https

from .server import Emulator
from .settings import Settings


class EmulatorTransport:
    """Starts an emulator and reaches it over a real socket. ``Client(providers={"emulator": {...}})`` sets it up."""

    base_url: str
    """Where the emulator is served; the core reads it."""

    def __init__(self, options: Options) -> None:
        self.emulator = Emulator(Settings.of(options.providers.get("emulator", {})))
        self._https = Https(attrs.evolve(options, proxy=None, ssl=None))
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Starts the emulator. Raises ConfigError."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.emulator)
            self.base_url = self.emulator.url
            stack.push_async_callback(self._https.aclose)
            await self._https.open()
            self._stack = stack.pop_all()

    async def aclose(self) -> None:
        """Closes the connections, then stops the emulator."""
        await self._stack.aclose()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        return await self._https.send(wire)
