"""The transport ``emulator``: a client whose providers run in its own process. Nothing leaves the machine."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Protocol, cast

import attrs

from impasto import ConfigError, MissingExtra, NotSent, Registry, WireRequest, WireResponse, hookimpl
from impasto.ext import TRANSPORTS, Options, Transport

from .providers.stability import NO_ENCODER, load_stability_operations
from .rendering.audio import can_encode
from .server.server import Emulator
from .settings import EmulatorSettings

EMULATED = ("bedrock", "stability")
"""The names of the emulated providers."""


class _Carrier(Transport, Protocol):
    async def send(self, wire: WireRequest) -> WireResponse: ...


class EmulatorTransport:
    """Starts an emulator and connects over a real socket. Settings: ``Client(providers={"emulator": {...}})``."""

    base_url: str
    """The emulator's address; the core reads it."""

    def __init__(self, options: Options) -> None:
        self.emulator = Emulator(EmulatorSettings.from_mapping(options.providers.get("emulator", {})))
        self._options = attrs.evolve(options, proxy=None, ssl=None)
        self._carriers: dict[str, _Carrier] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._closed = False
        self._unencodable_paths: set[str] = set()
        """Paths of audio operations whose default format can't be encoded here."""

    async def open(self) -> None:
        """Start the emulator. Raises ConfigError."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.emulator)
            self.base_url = self.emulator.url
            if not can_encode("mp3"):
                targets = await asyncio.to_thread(load_stability_operations)
                self._unencodable_paths = {path for path, variants in targets.items() if variants[0].output == "audio"}
            self._stack = stack.pop_all()

    async def aclose(self) -> None:
        """Close the connections, then stop the emulator."""
        async with self._opening:  # a transport that is being opened is closed too
            self._closed = True
            await self._stack.aclose()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        """Send the request to the emulator in this process."""
        provider = wire.call.account.provider
        if provider.name not in EMULATED:
            raise ConfigError(
                f"the emulator does not serve {provider.name}, only {' and '.join(EMULATED)}; nothing was sent"
            )
        if wire.target in self._unencodable_paths and wire.fields.get("output_format", "mp3") == "mp3":
            raise MissingExtra(f"{NO_ENCODER}; nothing was sent")
        carrier = self._carriers.get(provider.transport) or await self._open_carrier(provider.transport)
        return await carrier.send(wire)

    async def _open_carrier(self, name: str) -> _Carrier:
        """Return the transport to the provider itself. Raises MissingExtra if that needs one."""
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
