"""Where bytes wait that are too many for memory: a file without a name, and an upload, in memory up to 1 MiB."""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import BinaryIO, cast

from impasto import File
from impasto.ext import printable, to_its_end
from impasto_plugins.gateway.errors import SERVER, Failure

from .memory_budget import Share

IN_MEMORY = 1 << 20
_LONGEST_LABEL = 80


class Disk:
    """A file without a name, written and read outside the loop. ``size``: the bytes that are there for good."""

    def __init__(self) -> None:
        self.size = 0
        self._source: BinaryIO | None = None

    async def append(self, piece: bytes | bytearray) -> None:
        """Writes what comes next. Raises OSError; what is there stays there."""
        await to_its_end(self._append, piece)  # the file is there then, for close()

    async def read(self, at: int, size: int) -> bytes:
        """So many bytes from there on, all of which are there. Raises OSError."""
        return await asyncio.to_thread(self._read, at, size)

    async def file(self, label: str) -> File:
        """All of it, to be opened again and again until ``close``. Raises OSError."""
        return await asyncio.to_thread(self._file, label)

    def close(self) -> None:
        """Frees the disk."""
        if self._source is not None:
            self._source.close()

    def _append(self, piece: bytes | bytearray) -> None:
        if self._source is None:
            self._source = cast("BinaryIO", tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - closed in close()
        view = memoryview(piece)
        while view:
            view = view[self._source.write(view) :]
        self.size += len(piece)

    def _read(self, at: int, size: int) -> bytes:
        assert self._source is not None  # noqa: S101 - something is there
        return os.pread(self._source.fileno(), size, at)

    def _file(self, label: str) -> File:
        assert self._source is not None  # noqa: S101 - something is there
        self._source.seek(0)
        return File.of((label, self._source))


class Upload:
    """One upload as it comes in. ``close`` lets go of it."""

    def __init__(self, label: str, share: Share) -> None:
        self.label = printable(label[:_LONGEST_LABEL]) or "upload"
        self._share = share
        self._waiting = bytearray()
        self._disk: Disk | None = None
        self._file: File | None = None

    async def write(self, data: bytes | memoryview) -> None:
        """Takes the next piece. Raises Failure where there is no room for it."""
        waiting = self._waiting
        if self._disk is None and len(waiting) + len(data) <= IN_MEMORY:
            self._share.take(len(data))
        waiting += data
        if len(waiting) > IN_MEMORY:
            await self._flush()

    async def finish(self) -> File:
        """The whole upload, which can be opened again and again."""
        if self._disk is not None:
            await self._flush()
            self._file = await self._disk.file(self.label)
        else:
            self._file = File.of((self.label, bytes(self._waiting)))
        self._waiting = bytearray()
        return self._file

    def close(self) -> None:
        """Frees memory and disk."""
        if self._file is not None:
            self._file.close()
        if self._disk is not None:
            self._disk.close()

    async def _flush(self) -> None:
        piece, self._waiting = self._waiting, bytearray()
        self._disk = self._disk or Disk()
        try:
            await self._disk.append(piece)
        except OSError:
            said = "the gateway has no room for an upload; nothing was sent, try again"
            raise Failure(503, said, SERVER, "overloaded", retry_after=5, should_retry=True, close=True) from None
