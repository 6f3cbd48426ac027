"""Answers too large to be held: they go to disk as they come, and whoever asked may read them meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import attrs

from impasto import Call, Cost, File, Pending, WireRequest, WireResponse
from impasto_plugins.gateway.http.memory_budget import PICTURE_BYTES, Share
from impasto_plugins.gateway.http.spool import Disk
from impasto_plugins.gateway.storage.local import Folder

HELD = 8 << 20
"""Bytes of an answer that may be in memory, where there is room."""

PIECE = 3 << 18
"""Bytes that are written and read at once: a multiple of 3, whose base64 needs no padding."""

_STEP = 1 << 20

OnJob = Callable[[str], Awaitable[object]]
"""Receives the fingerprint of the account that a new job belongs to."""


@attrs.frozen
class Quote:
    """The price and the warnings of a call, known before it is made."""

    cost: Cost | None
    warnings: tuple[str, ...]


class Large:
    """One answer: a ``Spool`` of the core. Where the disk is full the rest stays in memory: it is paid for."""

    def __init__(self, share: Share, begun: Callable[[Large], object] | None = None) -> None:
        self._share = share
        self._begun = begun
        self._room = PICTURE_BYTES
        self._disk = Disk()
        self._waiting = bytearray()
        """What comes behind the disk's bytes."""
        self._is_full = False
        self._ended = False
        self._grown = asyncio.Event()
        self._file: File | None = None

    def holds(self, size: int) -> bool:
        """Whether so many bytes may be in memory."""
        if size > self._room and size <= HELD and self._share.grow(_STEP):
            self._room += _STEP
        return size <= self._room

    async def write(self, data: bytes) -> None:
        """Takes what comes next."""
        if self._begun is not None:
            self._begun(self)
            self._begun = None
        self._waiting += data
        if self._is_full:
            self._share.settle(self._share.bytes + len(data))
            self._grown.set()
        elif len(self._waiting) >= PIECE:
            await self._flush()

    async def finish(self) -> File:
        """All of it."""
        if not self._is_full:
            await self._flush()
        self._ended = True
        self._grown.set()
        if self._is_full:
            return File.of(await self._read(0, self._size))
        self._file = await self._disk.file("answer")
        return self._file

    async def pieces(self) -> AsyncIterator[bytes]:
        """Its bytes as they come, all but the last piece of PIECE bytes. They end where it does, sound or not."""
        at = 0
        while not self._ended or at < self._size:
            if self._size - at < PIECE and not self._ended:
                self._grown.clear()
                await self._grown.wait()
            else:
                piece = await self._read(at, min(PIECE, self._size - at))
                at += len(piece)
                yield piece

    def close(self) -> None:
        """Frees the disk."""
        if self._file is not None:
            self._file.close()
        self._disk.close()

    @property
    def _size(self) -> int:
        return self._disk.size + (len(self._waiting) if self._is_full else 0)

    async def _flush(self) -> None:
        try:
            await self._disk.append(self._waiting)
        except OSError:
            self._is_full = True
            self._share.settle(self._share.bytes + len(self._waiting))
        else:
            self._waiting = bytearray()
        self._grown.set()

    async def _read(self, at: int, size: int) -> bytes:
        there = min(max(self._disk.size - at, 0), size)
        data = await self._disk.read(at, there) if there else b""
        behind = at + there - self._disk.size
        return data + self._waiting[behind : behind + size - there] if there < size else data


class Answers:
    """The answers of one call. ``alone``: it makes one picture, which may be read from ``large`` while it comes.

    ``created``: when it began, in seconds since 1970.
    """

    def __init__(self, share: Share, unread: Folder, *, alone: bool) -> None:
        self.large: asyncio.Future[Growing] = asyncio.get_running_loop().create_future()
        self.created = int(time.time())
        self.unread = unread
        """Where answers are kept that can't be used."""
        self._alone = alone
        self._share = share
        self._made: list[Large] = []
        self.jobs: list[str] = []
        """The provider's ids of what it took on as a job."""
        self.on_attempt: Callable[[], object] | None = None
        """Is called when a call is about to be made."""

    def call(self, quote: Quote, on_job: OnJob | None = None) -> Callable[..., Call]:
        """Return a factory of the calls of one attempt. ``on_job`` is awaited before a new job is polled."""
        return partial(_Call, self, quote, on_job)

    def spool(self, quote: Quote, *, grows: bool) -> Large:
        """A spool for one answer. ``grows``: it may be read while it comes, as it is the picture, and comes once."""
        large = Large(self._share, partial(self._announce, quote) if grows and self._alone else None)
        self._made.append(large)
        return large

    def close(self) -> None:
        """Frees the disk."""
        for large in self._made:
            large.close()

    def _announce(self, quote: Quote, large: Large) -> None:
        if not self.large.done():
            self.large.set_result(Growing(quote, large))


@attrs.frozen
class Growing:
    """A large answer that is coming, and what its headers say."""

    quote: Quote
    large: Large


class _Call(Call):
    has_spools = True
    is_recorded = True

    def __init__(self, answers: Answers, quote: Quote, on_job: OnJob | None, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._answers, self._quote, self._on_job = answers, quote, on_job
        if answers.on_attempt is not None:
            answers.on_attempt()
        self._is_written = True

    def spool(self, response: WireResponse) -> Large:
        grows = self.job is None and response.media_type != "application/json"  # whose picture has text around it
        return self._answers.spool(self._quote, grows=grows)

    def accepted(self, pending: Pending) -> None:
        super().accepted(pending)
        self._answers.jobs.append(pending.id)
        self._is_written = False

    async def sending(self, wire: WireRequest) -> None:
        if not self._is_written:
            self._is_written = True
            if self._on_job is not None:
                await self._on_job(self.account.fingerprint)
