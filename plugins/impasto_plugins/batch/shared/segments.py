"""The logs of the hosts in the bucket: each is a sequence of segments, which are never changed.

A segment has the rows that a host's ledger gained since the one before. Sixteen of them are also written as one of
level 1, and sixteen of these as one of level 2.
"""

from __future__ import annotations

import asyncio
import errno
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import attrs

from impasto import File, ImpastoError
from impasto_plugins.batch.ledger.group_commit import WriteSteps
from impasto_plugins.batch.ledger.log import HEAD, Row, parse_row
from impasto_plugins.batch.ledger.states import state_of
from impasto_plugins.batch.ledger.workspace import Workspace
from impasto_plugins.batch.output.s3 import TRIES
from impasto_plugins.transports.s3 import NotStored, Objects

FLUSH_SECONDS = 0.5
"""Seconds from one segment to the next, at least."""

_FOLDER = ".impasto/log/"
_FANOUT, _LEVELS = 16, 2
_JSON_LINES = "application/jsonl"


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise OSError for a bucket that can't be used."""
    try:
        yield
    except (NotStored, ImpastoError) as error:
        raise OSError(errno.EIO, f"the bucket can't be used: {error}") from None


def _level_of(host: str, level: int) -> str:
    return f"{_FOLDER}{host}/{level}-"


def segment_name(host: str, level: int, number: int) -> str:
    """Return the name of a segment; ``number`` counts those of its level."""
    return f"{_level_of(host, level)}{number:08}"


async def read_segments(
    objects: Objects, host: str, position: int, length: int
) -> AsyncIterator[tuple[list[Row], int]]:
    """Yield the rows of a host's log from a segment on, and the number of segments up to there.

    ``length``: the number of segments that the host's lease names; those after it are looked for too. Raises NotStored,
    ConfigError, NotSent.
    """
    while True:
        for level in range(_LEVELS, -1, -1):
            size = _FANOUT**level
            if position % size or (level and position + size > length):
                continue
            data = await objects.get(segment_name(host, level, position // size), tries=TRIES)
            if data is not None:
                position += size
                yield [json.loads(line) for line in data.splitlines()], position
                break
        else:
            return


async def count_segments(objects: Objects, host: str) -> int:
    """Return the number of segments of a host's log. Raises NotStored, ConfigError, NotSent."""
    return len((await objects.list_objects(_level_of(host, 0))).entries)


@attrs.define(eq=False)
class OwnLog:
    """This host's log: own rows of its folder's ledger."""

    folder: Workspace
    objects: Objects
    host: str
    count: int = 0
    """The number of segments in the bucket."""
    _exported: int = attrs.field(default=attrs.Factory(lambda self: self.folder.history.exported, takes_self=True))
    _starts: list[int] = attrs.field(factory=list[int])
    _pending: tuple[int, bytes] | None = None
    """A segment that may be in the bucket, and where it ends in the ledger: it is written again as it was."""
    _written_at: float = 0.0
    _writing: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    async def flush(self) -> None:
        """Wait until all rows of this moment are in the bucket. Raises OSError."""
        end = await self.folder.submit(self._size())
        while self._exported < end:
            async with self._writing:
                if self._exported < end:
                    await self._write_segment()

    async def _write_segment(self) -> None:
        if (pending := self._pending) is None:
            await asyncio.sleep(self._written_at + FLUSH_SECONDS - time.monotonic())  # rows of others come too
            pending = await self.folder.submit(self._export(self._exported))
            self._pending = pending
        end, data = pending
        if data:
            with storage_errors():
                await self._put(0, self.count, data)
            self._starts.append(self._exported)
            self.count += 1
            self._written_at = time.monotonic()
        self._exported, self._pending = end, None
        if data:
            row = {"row": "shared", "exported": end}
            await self.folder.submit(self.folder.write_row(row, on_disk=False))
            await self._write_larger(end)

    async def _write_larger(self, end: int) -> None:
        """Write the segments of higher levels that end here. Readers do without them too."""
        for level in range(1, _LEVELS + 1):
            size = _FANOUT**level
            if self.count % size:
                return
            _, data = await self.folder.submit(self._export(self._starts[-size], end))
            with suppress(NotStored, ImpastoError):
                await self._put(level, self.count // size - 1, data)

    async def _put(self, level: int, number: int, data: bytes) -> None:
        name, content = segment_name(self.host, level, number), File.of(data)
        put = partial(self.objects.put, name, content, _JSON_LINES, tries=TRIES)
        await put(only_new=True)  # if it exists an earlier try has written the same

    def _size(self) -> WriteSteps[int]:
        yield from ()
        return self.folder.ledger.size

    def _export(self, start: int, end: int | None = None) -> WriteSteps[tuple[int, bytes]]:
        """Return the end of a part of the ledger, and its own rows."""
        yield from ()
        end = self.folder.ledger.size if end is None else end
        with self.folder.layout.ledger.open("rb") as file:
            file.seek(start)
            lines = file.read(end - start).splitlines()
        own = [row for row in (parse_row(line[HEAD:]) for line in lines) if state_of(row) and "from" not in row]
        bodies = ({name: value for name, value in row.items() if name != "replaces"} for row in own)
        return end, "".join(f"{json.dumps(body, separators=(',', ':'))}\n" for body in bodies).encode()
