"""The transport ``cassette``: it replays recorded answers, or calls the provider and records the answers."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol, cast

from impasto import ConfigError, NotSent, Registry, WireRequest, WireResponse, hookimpl
from impasto.ext import TRANSPORTS, Options, Transport

from .tape import BASE_URL, Tape, replace_address, request_record

MODES = ("replay", "auto", "record")


class _Sender(Transport, Protocol):
    async def send(self, wire: WireRequest) -> WireResponse: ...


class Cassette:
    """The transport of a client. Its settings are in ``providers={"cassette": {...}}`` or in variables."""

    def __init__(self, options: Options) -> None:
        settings = options.providers.get("cassette", {})
        if unknown := sorted(set(settings) - {"file", "mode"}):
            raise ConfigError(f"cassette takes file and mode, not {unknown[0]!r}")
        file = settings.get("file") or os.environ.get("IMPASTO_CASSETTE")
        mode = settings.get("mode") or os.environ.get("IMPASTO_CASSETTE_MODE") or "replay"
        if not isinstance(file, str | os.PathLike):
            raise ConfigError("cassette: name the file with IMPASTO_CASSETTE or providers={'cassette': {'file': ...}}")
        if not isinstance(mode, str) or mode not in MODES:
            raise ConfigError(f"cassette: mode must be one of {', '.join(MODES)}, not {mode!r}")
        self.tape = Tape(Path(file))
        self._mode, self._options = mode, options
        if mode == "replay":
            self.base_url = BASE_URL  # the core reads it: a transport with an address needs no key
        self._senders: dict[str, _Sender] = {}
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Read the file. Raises ConfigError."""
        path = self.tape.path
        exists = await asyncio.to_thread(path.exists)
        if self._mode == "replay" and not exists:
            raise ConfigError(f"cassette: {str(path)!r} does not exist; record it with IMPASTO_CASSETTE_MODE=auto")
        if self._mode == "record" and exists:
            raise ConfigError(f"cassette: {str(path)!r} exists; delete it, or use the mode auto")
        self.tape = await asyncio.to_thread(Tape.read, path)

    async def aclose(self) -> None:
        """Close the provider's own transports."""
        await self._stack.aclose()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        """Return a recorded answer, for which nothing is charged, or else the provider's."""
        request = await asyncio.to_thread(request_record, wire)
        if self._mode != "record" and (response := self.tape.play(request)) is not None:
            return replace_address(response, BASE_URL, wire.call.account.base_url)
        if self._mode == "replay":
            problem = f"the cassette {str(self.tape.path)!r} has no answer to this {wire.method} {wire.target}"
            raise NotSent(f"{problem}; nothing was sent", retryable=False)
        sender = await self._sender(wire.call.account.provider.transport)
        response = await wire.call.read_body(await sender.send(wire))
        async with self._lock:
            account = wire.call.account
            await asyncio.to_thread(self.tape.record, request, response, account.base_url, wire.call.secrets)
        return response

    async def _sender(self, name: str) -> _Sender:
        """Return the provider's own transport."""
        async with self._lock:
            if name not in self._senders:
                factory = await asyncio.to_thread(Registry(allow=self._options.plugins).load, TRANSPORTS, name, type)
                sender = cast("_Sender", factory(self._options))
                self._stack.push_async_callback(sender.aclose)
                await sender.open()
                self._senders[name] = sender
            return self._senders[name]
