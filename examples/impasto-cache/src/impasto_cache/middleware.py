"""The middleware ``cache``: around a whole call, as ``outer`` is, its polls too."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from impasto import Call, ConfigError, Handler, Middleware, Operation, Result, WireRequest, WireResponse, hookimpl
from impasto.ext import Options

from .store import Store


class Cache:
    """Made with the client's options; ``providers={"cache": {...}}`` or variables say where and how much."""

    def __init__(self, options: Options | None = None) -> None:
        given: Mapping[str, object] = options.providers.get("cache", {}) if options is not None else {}
        if unknown := sorted(set(given) - {"folder", "max_bytes", "unseeded"}):
            raise ConfigError(f"cache takes folder, max_bytes and unseeded, not {unknown[0]!r}")
        folder = given.get("folder") or os.environ.get("IMPASTO_CACHE") or Path.home() / ".cache" / "impasto"
        if not isinstance(folder, str | os.PathLike):
            raise ConfigError(f"cache: folder must be a path, not {type(folder).__name__}")
        self.store = Store(
            Path(folder), _bytes(given.get("max_bytes", os.environ.get("IMPASTO_CACHE_BYTES", f"{1 << 30}")))
        )
        self.unseeded = _names(given.get("unseeded", os.environ.get("IMPASTO_CACHE_UNSEEDED", "")))
        self._making: dict[str, asyncio.Event] = {}
        """The requests that somebody pays for now, or looks for; whoever asks for the same waits."""
        self._answers: dict[Call, WireResponse | None] = {}
        """The last answer of each of those calls: of a job's that is its picture."""
        self._writing: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Waits until what came is written."""
        while self._writing:
            await asyncio.wait(self._writing)

    @hookimpl
    def middleware(self, operation: Operation) -> Middleware | None:
        """Stands around the models of which anything can be kept."""
        if "seed" not in operation.fields and operation.id not in self.unseeded:
            return None
        return _Layer(self, unseeded=operation.id in self.unseeded)

    async def found_or_made(self, wire: WireRequest, next: Handler) -> WireResponse:
        """The kept answer to a paid request, or the one that is paid for now, once for all who ask meanwhile."""
        call = wire.call
        key = await asyncio.to_thread(_digest, wire)
        while (other := self._making.get(key)) is not None:
            call.begin()  # its time runs while it waits
            await other.wait()
        self._making[key] = asyncio.Event()
        try:
            found = await asyncio.to_thread(self.store.get, key)
        except BaseException:
            self._over(key)
            raise
        if found is not None:
            self._over(key)
            return found
        self._answers[call] = None
        call.on_end += (functools.partial(self._ended, key, call),)
        return await self.passed(wire, next)

    async def passed(self, wire: WireRequest, next: Handler) -> WireResponse:
        """The provider's answer, remembered where it may be kept."""
        response = await next(wire)
        if wire.call in self._answers:
            self._answers[wire.call] = response
        return response

    def _ended(self, key: str, call: Call, result: Result | None) -> None:
        answer = self._answers.pop(call)
        if result is None or answer is None or answer.file is not None:  # only what became a result is worth keeping
            self._over(key)
            return
        task = asyncio.create_task(asyncio.to_thread(self.store.put, key, answer))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        task.add_done_callback(lambda _: self._over(key))

    def _over(self, key: str) -> None:
        self._making.pop(key).set()


class _Layer:
    position = "outer"

    def __init__(self, cache: Cache, *, unseeded: bool) -> None:
        self._cache, self._unseeded = cache, unseeded

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        seed = getattr(wire.call.request.params, "seed", None)
        if wire.method == "POST" and (seed or self._unseeded):
            return await self._cache.found_or_made(wire, next)
        return await self._cache.passed(wire, next)


def _digest(wire: WireRequest) -> str:
    """What a request asks, and for whom: another key has pictures of its own. Reads files."""
    files: dict[str, str] = {}
    for name, file in wire.files.items():
        found = hashlib.sha256()
        with file.open() as source:
            while piece := source.read(1 << 20):
                found.update(piece)
        files[name] = found.hexdigest()
    account = wire.call.account
    asks = (account.provider.name, account.fingerprint, wire.target, dict(wire.fields), files)
    return hashlib.sha256(json.dumps(asks, sort_keys=True).encode()).hexdigest()


def _bytes(given: object) -> int:
    if isinstance(given, str) and given.isascii() and given.isdigit():
        given = int(given)
    if type(given) is not int or given < 1:
        raise ConfigError(f"cache: max_bytes must be a whole number of at least 1, not {given!r}")
    return given


def _names(given: object) -> frozenset[str]:
    if isinstance(given, str):
        given = [name.strip() for name in given.split(",") if name.strip()]
    if not isinstance(given, Collection) or not all(isinstance(name, str) for name in given):
        raise ConfigError("cache: unseeded must be a list of models' names")
    return frozenset(given)
