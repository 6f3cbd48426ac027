"""Where an upload waits until it is sent: in memory up to 1 MiB, then on disk."""

from __future__ import annotations

import asyncio
import tempfile
from typing import BinaryIO, cast

from impasto import File
from impasto.redact import printable

from .errors import SERVER, Failure
from .flow import Share

IN_MEMORY = 1 << 20
_LONGEST_LABEL = 80


class Spool:
    """One upload as it comes in. ``close`` lets go of it."""

    def __init__(self, label: str, share: Share) -> None:
        self.label = printable(label[:_LONGEST_LABEL]) or "upload"
        self._share = share
        self._waiting = bytearray()
        self._disk: BinaryIO | None = None
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
            self._disk.seek(0)
            self._file = await asyncio.to_thread(File.of, (self.label, self._disk))
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
        writing = asyncio.ensure_future(asyncio.to_thread(self._append, piece))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # the file is there then, for close()
            raise
        except OSError:
            said = "the gateway has no room for an upload; nothing was sent, try again"
            raise Failure(503, said, SERVER, "overloaded", retry_after=5, should_retry=True, close=True) from None

    def _append(self, piece: bytearray) -> None:
        if self._disk is None:
            self._disk = cast("BinaryIO", tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - closed in close()
        view = memoryview(piece)
        while view:
            view = view[self._disk.write(view) :]
