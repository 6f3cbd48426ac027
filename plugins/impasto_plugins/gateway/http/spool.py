"""Storage for bytes that are too many for memory: an unnamed file, and an upload, in memory up to 1 MiB."""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import BinaryIO, cast

import attrs

from impasto import File
from impasto_plugins.concurrency import to_thread_shielded
from impasto_plugins.gateway.errors import overloaded

from .memory_budget import MemoryReservation

MAX_MEMORY_BYTES = 1 << 20


@attrs.define(eq=False)
class SpoolFile:
    """An unnamed file, written and read outside the loop. ``size``: the bytes that are written."""

    size: int = 0
    _target: BinaryIO | None = None

    async def append(self, chunk: bytes | bytearray) -> None:
        """Write the next bytes. Raises OSError; earlier bytes stay."""
        await to_thread_shielded(self._append, chunk)  # the file is there then, for close()

    async def read(self, offset: int, size: int) -> bytes:
        """Return bytes at a position, all of which are written. Raises OSError."""
        return await asyncio.to_thread(self._read, offset, size)

    async def to_file(self, label: str) -> File:
        """Return all of it as a file that can be opened repeatedly until ``close``. Raises OSError."""
        return await asyncio.to_thread(self._to_file, label)

    def close(self) -> None:
        """Release the disk space."""
        if self._target is not None:
            self._target.close()

    def _append(self, chunk: bytes | bytearray) -> None:
        if self._target is None:
            self._target = cast("BinaryIO", tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - closed in close()
        view = memoryview(chunk)
        while view:
            view = view[self._target.write(view) :]
        self.size += len(chunk)

    def _read(self, offset: int, size: int) -> bytes:
        assert self._target is not None  # noqa: S101 - something is there
        return os.pread(self._target.fileno(), size, offset)

    def _to_file(self, label: str) -> File:
        assert self._target is not None  # noqa: S101 - something is there
        self._target.seek(0)
        return File.of((label, self._target))


@attrs.define(eq=False)
class UploadSpool:
    """One upload as it arrives."""

    label: str
    _reservation: MemoryReservation
    _buffer: bytearray = attrs.field(factory=bytearray)
    _spool_file: SpoolFile | None = None
    _file: File | None = None

    async def write(self, data: bytes | memoryview) -> None:
        """Write the next piece. Raises APIError if there is no room for it."""
        buffer = self._buffer
        if self._spool_file is None and len(buffer) + len(data) <= MAX_MEMORY_BYTES:
            self._reservation.reserve(len(data))
        buffer += data
        if len(buffer) > MAX_MEMORY_BYTES:
            await self._flush()

    async def finish(self) -> File:
        """Return the whole upload, which can be opened repeatedly."""
        if self._spool_file is not None:
            await self._flush()
            self._file = await self._spool_file.to_file(self.label)
        else:
            self._file = File.of((self.label, bytes(self._buffer)))
        self._buffer = bytearray()
        return self._file

    def close(self) -> None:
        """Release memory and disk space."""
        if self._file is not None:
            self._file.close()
        if self._spool_file is not None:
            self._spool_file.close()

    async def _flush(self) -> None:
        chunk, self._buffer = self._buffer, bytearray()
        self._spool_file = self._spool_file or SpoolFile()
        try:
            await self._spool_file.append(chunk)
        except OSError:
            message = "the gateway's disk has no space for an upload; nothing was sent, try again"
            raise overloaded(message, close=True) from None
