"""The transport ``cassette``: answers from a tape, or calls the provider and records what it answers."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol, cast

from impasto import ConfigError, NotSent, Registry, WireRequest, WireResponse, hookimpl
from impasto.ext import TRANSPORTS, Options, Transport

from .tape import BASE_URL, Tape, asked, readdressed

MODES = ("replay", "auto", "record")


class _Carrier(Transport, Protocol):
    async def send(self, wire: WireRequest) -> WireResponse: ...


class Cassette:
    """Made with the client's options; ``providers={"cassette": {...}}`` or variables say which tape, and how."""

    def __init__(self, options: Options) -> None:
        given = options.providers.get("cassette", {})
        if unknown := sorted(set(given) - {"file", "mode"}):
            raise ConfigError(f"cassette takes file and mode, not {unknown[0]!r}")
        file = given.get("file") or os.environ.get("IMPASTO_CASSETTE")
        mode = given.get("mode") or os.environ.get("IMPASTO_CASSETTE_MODE") or "replay"
        if not isinstance(file, str | os.PathLike):
            raise ConfigError("cassette: name the tape, by IMPASTO_CASSETTE or providers={'cassette': {'file': ...}}")
        if not isinstance(mode, str) or mode not in MODES:
            raise ConfigError(f"cassette: mode must be one of {', '.join(MODES)}, not {mode!r}")
        self.tape = Tape(Path(file))
        self._mode, self._options = mode, options
        if mode == "replay":
            self.base_url = BASE_URL  # the core reads it: what serves the provider needs no key
        self._carriers: dict[str, _Carrier] = {}
        self._one = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Reads the tape. Raises ConfigError."""
        path = self.tape.path
        there = await asyncio.to_thread(path.exists)
        if self._mode == "replay" and not there:
            raise ConfigError(f"cassette: there is no {str(path)!r}; record it with IMPASTO_CASSETTE_MODE=auto")
        if self._mode == "record" and there:
            raise ConfigError(f"cassette: {str(path)!r} is there already; delete it, or use the mode auto")
        self.tape = await asyncio.to_thread(Tape.read, path)

    async def aclose(self) -> None:
        """Closes what the provider was called by."""
        await self._stack.aclose()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        """An answer of the tape's, for which no paid request is begun; else the provider's."""
        request = await asyncio.to_thread(asked, wire)
        if self._mode != "record" and (response := self.tape.play(request)) is not None:
            return readdressed(response, BASE_URL, wire.call.account.base_url)
        if self._mode == "replay":
            said = f"the cassette {str(self.tape.path)!r} has no answer to this {wire.method} {wire.target}"
            raise NotSent(f"{said}; nothing was sent", retryable=False)
        carrier = await self._carrier(wire.call.account.provider.transport)
        response = await wire.call.read_body(await carrier.send(wire))
        async with self._one:
            account = wire.call.account
            await asyncio.to_thread(self.tape.record, request, response, account.base_url, wire.call.secrets)
        return response

    async def _carrier(self, name: str) -> _Carrier:
        """The transport by which the provider itself is called."""
        async with self._one:
            if name not in self._carriers:
                factory = await asyncio.to_thread(Registry(allow=self._options.plugins).load, TRANSPORTS, name, type)
                carrier = cast("_Carrier", factory(self._options))
                self._stack.push_async_callback(carrier.aclose)
                await carrier.open()
                self._carriers[name] = carrier
            return self._carriers[name]
