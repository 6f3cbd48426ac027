"""The transport ``emulator``: a client whose providers' stand-ins run in its process. Nothing leaves the machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, cast
from urllib.parse import urlsplit

import attrs

from impasto import ConfigError, MissingExtra, NotSent, Operation, Registry, WireRequest, WireResponse, hookimpl
from impasto.ext import TRANSPORTS, Options, Transport, is_loopback

from .providers.stability import NO_ENCODER, load_stability_operations
from .rendering.audio import can_encode
from .server.server import Emulator
from .settings import EmulatorSettings
from .stand_ins import StandIns, serve_emulator


class _Carrier(Transport, Protocol):
    async def send(self, wire: WireRequest) -> WireResponse: ...


class EmulatorTransport:
    """Starts the stand-in of each provider that is called, and connects over a real socket.

    Settings of the built-in emulator: ``Client(providers={"emulator": {...}})``.
    """

    def __init__(self, options: Options) -> None:
        self.emulator = Emulator(EmulatorSettings.from_mapping(options.providers.get("emulator", {})))
        self._stand_ins = StandIns({serve_emulator: self._serve})
        self._options = attrs.evolve(options, proxy=None, ssl=None)
        self._carriers: dict[str, _Carrier] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._closed = False
        self._unencodable_paths: set[str] = set()
        """Paths of audio operations whose default format can't be encoded here."""

    async def open(self) -> None:
        """Do nothing: a stand-in is started by ``emulate``."""
        self._stack.push_async_callback(self._stand_ins.aclose)

    async def emulate(self, operation: Operation, registry: Registry) -> str:
        """Start the stand-in of a model's provider, and return its base URL. Raises ConfigError, BrokenPlugin."""
        async with self._opening:
            if self._closed:
                raise NotSent("the client is closed; nothing was sent", retryable=False)
            return await self._stand_ins.url(operation.provider.name, registry, model=operation.id)

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[str]:
        """Serve the built-in emulator with this client's settings."""
        async with self.emulator:
            if not can_encode("mp3"):
                targets = await asyncio.to_thread(load_stability_operations)
                self._unencodable_paths = {path for path, variants in targets.items() if variants[0].output == "audio"}
            yield self.emulator.url

    async def aclose(self) -> None:
        """Close the connections, then stop the stand-ins."""
        async with self._opening:  # a transport that is being opened is closed too
            self._closed = True
            await self._stack.aclose()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        """Send the request to the stand-in in this process."""
        if wire.target in self._unencodable_paths and wire.fields.get("output_format", "mp3") == "mp3":
            raise MissingExtra(f"{NO_ENCODER}; nothing was sent")
        account = wire.call.account
        if not is_loopback(urlsplit(account.base_url).hostname or ""):
            raise ConfigError(
                f"the address of {account.provider.name} is not its emulator's; leave api_base out; nothing was sent"
            )
        name = account.provider.transport
        carrier = self._carriers.get(name) or await self._open_carrier(name)
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
