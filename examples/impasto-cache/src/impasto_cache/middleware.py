"""The middleware ``cache``. It is ``outer``: it wraps a whole call with its polls."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from impasto import Call, ConfigError, File, Handler, Middleware, Operation, Result, WireRequest, WireResponse, hookimpl
from impasto.ext import Options

from .store import Store


class Cache:
    """The cache of a client. Its settings are in ``providers={"cache": {...}}`` or in variables."""

    def __init__(self, options: Options | None = None) -> None:
        settings: Mapping[str, object] = options.providers.get("cache", {}) if options is not None else {}
        if unknown := sorted(set(settings) - {"folder", "max_bytes", "unseeded"}):
            raise ConfigError(f"cache takes folder, max_bytes and unseeded, not {unknown[0]!r}")
        folder = settings.get("folder") or os.environ.get("IMPASTO_CACHE") or Path.home() / ".cache" / "impasto"
        if not isinstance(folder, str | os.PathLike):
            raise ConfigError(f"cache: folder must be a path, not {type(folder).__name__}")
        self.store = Store(
            Path(folder), _bytes(settings.get("max_bytes", os.environ.get("IMPASTO_CACHE_BYTES", f"{1 << 30}")))
        )
        self.unseeded = _names(settings.get("unseeded", os.environ.get("IMPASTO_CACHE_UNSEEDED", "")))
        self._in_flight: dict[str, asyncio.Event] = {}
        """Requests that are being read or paid for, by digest; equal requests wait."""
        self._answers: dict[Call, WireResponse | None] = {}
        """The last answer of each call in flight; the last answer of a job is its image."""
        self._writing: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Wait until all answers are written."""
        while self._writing:
            await asyncio.wait(self._writing)

    @hookimpl
    def middleware(self, operation: Operation) -> Middleware | None:
        """Return the middleware of a model, or None if none of its answers can be cached."""
        if "seed" not in operation.fields and operation.id not in self.unseeded:
            return None
        return _Layer(self, unseeded=operation.id in self.unseeded)

    async def read_or_request(self, wire: WireRequest, next: Handler) -> WireResponse:
        """Return the cached answer, or request it once for all equal requests in the meantime."""
        call = wire.call
        key = await asyncio.to_thread(_digest, wire)
        while (other := self._in_flight.get(key)) is not None:
            call.begin()  # its time runs while it waits
            await other.wait()
        self._in_flight[key] = asyncio.Event()
        try:
            found = await asyncio.to_thread(self.store.get, key)
        except BaseException:
            self._release(key)
            raise
        if found is not None:
            self._release(key)
            return found
        self._answers[call] = None
        call.on_end += (functools.partial(self._ended, key, call),)
        return await self.request(wire, next)

    async def request(self, wire: WireRequest, next: Handler) -> WireResponse:
        """Return the provider's answer, and remember it if it may be cached."""
        response = await next(wire)
        if wire.call in self._answers:
            self._answers[wire.call] = response
        return response

    def _ended(self, key: str, call: Call, result: Result | None) -> None:
        answer = self._answers.pop(call)
        if result is None or answer is None or answer.file is not None:  # only results are cached
            self._release(key)
            return
        task = asyncio.create_task(asyncio.to_thread(self.store.put, key, answer))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        task.add_done_callback(lambda _: self._release(key))

    def _release(self, key: str) -> None:
        self._in_flight.pop(key).set()


class _Layer:
    position = "outer"

    def __init__(self, cache: Cache, *, unseeded: bool) -> None:
        self._cache, self._unseeded = cache, unseeded

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        seed = getattr(wire.call.request.params, "seed", None)
        if wire.method == "POST" and (seed or self._unseeded):
            return await self._cache.read_or_request(wire, next)
        return await self._cache.request(wire, next)


def _digest(wire: WireRequest) -> str:
    """Return the digest of a request and its account. Reads files."""
    files = [(name, _file_digest(file)) for name, file in wire.files]
    account = wire.call.account
    identity = (account.provider.name, account.fingerprint, wire.target, dict(wire.fields), files)
    text = json.dumps(identity, sort_keys=True, default=lambda ref: _file_digest(ref.file))
    return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(file: File) -> str:
    digest = hashlib.sha256()
    with file.open() as source:
        while piece := source.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _bytes(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if type(value) is not int or value < 1:
        raise ConfigError(f"cache: max_bytes must be a whole number of at least 1, not {value!r}")
    return value


def _names(value: object) -> frozenset[str]:
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, Collection) or not all(isinstance(name, str) for name in value):
        raise ConfigError("cache: unseeded must be a list of names of models")
    return frozenset(value)
