"""The transport ``emulator``: a client whose providers run in its own process. Nothing leaves the machine."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Protocol, cast

import attrs

from impasto import MissingExtra, NotSent, Registry, WireRequest, WireResponse, hookimpl
from impasto.ext import TRANSPORTS, Options, Transport

from .providers.stability import NO_ENCODER, installed
from .rendering.audio import can_encode
from .server.server import Emulator
from .settings import Settings


class _Carrier(Transport, Protocol):
    async def send(self, wire: WireRequest) -> WireResponse: ...


class EmulatorTransport:
    """Starts an emulator and reaches it over a real socket. ``Client(providers={"emulator": {...}})`` sets it up."""

    base_url: str
    """Where the emulator is served; the core reads it."""

    def __init__(self, options: Options) -> None:
        self.emulator = Emulator(Settings.of(options.providers.get("emulator", {})))
        self._options = attrs.evolve(options, proxy=None, ssl=None)
        self._carriers: dict[str, _Carrier] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._closed = False
        self._unmakable: set[str] = set()
        """Paths of sounds whose usual format can't be encoded here."""

    async def open(self) -> None:
        """Starts the emulator. Raises ConfigError."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.emulator)
            self.base_url = self.emulator.url
            if not can_encode("mp3"):
                targets = await asyncio.to_thread(installed)
                self._unmakable = {path for path, variants in targets.items() if variants[0].makes == "audio"}
            self._stack = stack.pop_all()

    async def aclose(self) -> None:
        """Closes the connections, then stops the emulator."""
        async with self._opening:  # what is being opened is closed too
            self._closed = True
            await self._stack.aclose()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        if wire.target in self._unmakable and wire.fields.get("output_format", "mp3") == "mp3":
            raise MissingExtra(f"{NO_ENCODER}; nothing was sent")
        name = wire.call.account.provider.transport
        carrier = self._carriers.get(name) or await self._opened(name)
        return await carrier.send(wire)

    async def _opened(self, name: str) -> _Carrier:
        """The transport by which the provider itself is reached. Raises MissingExtra where that needs one."""
        async with self._opening:
            if self._closed:
                raise NotSent("the client is closed; nothing was sent", retryable=False)
            if name not in self._carriers:
                factory = await asyncio.to_thread(Registry(allow=self._options.plugins).load, TRANSPORTS, name, type)
                carrier = cast("_Carrier", factory(self._options))
                self._stack.push_async_callback(carrier.aclose)  # first: it may be opened in part
                await carrier.open()
                self._carriers[name] = carrier
            return self._carriers[name]
