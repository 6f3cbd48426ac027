"""The ledger: an append-only file of rows, each whole or not there.

A row is one line and one write: the CRC-32 of its JSON, the CRC-32 of that and of all rows before it, the JSON. So a
row that is damaged is known, and so is one that was taken out, put in or moved. Only the end may be torn, by a process
or a machine that stopped: it is cut off and counted. Whatever else is wrong stops the run.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import attrs

from impasto import ConfigError

from .filesystem import Disk

Row = Mapping[str, Any]
"""A row's JSON: which names it has follows from its kind, see ``rows.py``."""

HEAD = 18
"""The two checksums of a row, in hexadecimal, and the spaces after them."""

_LOST = bytes(16)
"""No row has so many zeros: the machine stopped before the page that was there was on the disk."""

_ROW = re.compile(rb"[0-9a-f]{8} [0-9a-f]{8} \{.*\}\n")
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().raw_decode


@attrs.define
class Read:
    """How far a ledger was read: ``end`` bytes of whole rows, their checksum, the bytes of a torn end after them."""

    end: int = 0
    chain: int = 0
    torn: int = 0


ON_THE_WAY = frozenset({b'{"row":"intent"', b'{"row":"staged"'})
ON_RESUME = ON_THE_WAY | {b'{"row":"done","'}
"""Beginnings of rows of which some readers want the head alone: what stands before ``n``. In a text that would be
escaped."""

_HEAD_ENDS = b',"n":'


def rows(path: Path, read: Read, *, heads: frozenset[bytes] = frozenset()) -> Iterator[tuple[int, Row]]:
    """Each row with its place in the file; none where there is no file. Raises ConfigError where one is damaged.

    ``heads``: the rows of which only the head is decoded, which is what reading a ledger takes longest for.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        end, chain = 0, 0
        for line in file:
            body = line[HEAD:-1]
            chain = crc32(body, chain)
            if line[:HEAD] != b"%08x %08x " % (crc32(body), chain) or line[-1:] != b"\n":
                read.torn = _torn(path, end)
                return
            if body[:15] in heads:
                body = body[: body.index(_HEAD_ENDS)] + b"}"
            yield end, parsed(body)
            end += len(line)
            read.end, read.chain = end, chain


def parsed(body: bytes) -> Row:
    """A row's JSON, whose checksum was found right."""
    row: Row = _decode(body.decode("ascii"))[0]
    return row


def _torn(path: Path, at: int) -> int:
    """The size of a torn end. Raises ConfigError where what stands there was not left by a stop in mid-write.

    A write cut short has no line's end. After a machine's crash there may be pages of zeros among the last rows.
    """
    with path.open("rb") as file:
        file.seek(at)
        rest = file.read()
    lines = rest.splitlines(keepends=True)
    whole = any(_ROW.fullmatch(line) and int(line[:8], 16) == crc32(line[HEAD:-1]) for line in lines[1:])
    if whole or (b"\n" in rest and _LOST not in rest):
        raise ConfigError(
            f"the ledger {str(path)!r} is damaged at byte {at:,}, before its end: what was paid for is not known any"
            " more. Put back a copy of it; or begin a new folder, with those rows of the manifest alone that"
            " results.jsonl and errors.jsonl here do not name"
        )
    return len(rest)


@attrs.define(eq=False)
class Ledger:
    """The one writer's end of the file. All its methods block."""

    path: Path
    disk: Disk
    size: int = 0
    chain: int = 0
    _file: int = -1

    def open(self, read: Read) -> None:
        """Goes on where reading ended; a torn end is cut off. Raises OSError."""
        is_new = not self.path.exists()
        self._file = self.disk.append(self.path)
        self.size, self.chain = read.end, read.chain
        if read.torn:
            self.disk.truncate(self._file, read.end)
            self.disk.sync(self._file)
        if is_new:
            self.disk.sync_folder(self.path.parent)

    def append(self, row: Row) -> int:
        """Writes a row, and returns its place. Raises OSError, and then the file is as before."""
        body = _encode(row).encode("ascii")
        chain = crc32(body, self.chain)
        line = b"%08x %08x %b\n" % (crc32(body), chain, body)
        written = self.disk.write(self._file, line)
        if written < len(line):  # a full disk, or a limit on the size of files, takes part of a write
            self.disk.truncate(self._file, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        place = self.size
        self.size, self.chain = place + written, chain
        return place

    def sync(self) -> None:
        """Waits until all rows are on the disk. Raises OSError."""
        self.disk.sync(self._file)

    def close(self) -> None:
        """Lets go of the file."""
        if self._file >= 0:
            self.disk.close(self._file)
            self._file = -1


class Rows:
    """Reads single rows of a ledger by their places."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def at(self, place: int) -> Row:
        """The row that begins there."""
        self._file.seek(place)
        return parsed(self._file.readline()[HEAD:-1])

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()
