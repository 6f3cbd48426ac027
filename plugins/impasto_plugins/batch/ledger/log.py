"""The ledger: an append-only file of rows, each whole or absent.

A row is one line and one write: the CRC-32 of its JSON, the CRC-32 of that and of all rows before it, the JSON. So a
damaged row is detected, and so is one that was removed, inserted or moved. Only a torn last row, left by a process or
machine that stopped, is cut off and reported. Any other damage stops the run, and so does a ledger that the
high-water mark does not confirm (``high_water.py``).
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import attrs

from impasto import ConfigError

from .filesystem import Disk, open_plain
from .high_water import HighWater, Mark

Row = Mapping[str, Any]
"""A row's JSON. Its keys depend on its kind, see ``states.py``."""

HEAD = 18
"""The two checksums of a row, in hexadecimal, and the spaces after them."""

_LOST = bytes(16)
"""A run of zeros that no row has: the machine stopped before this page was on the disk."""

_ROW = re.compile(rb"[0-9a-f]{8} [0-9a-f]{8} \{.*\}\n")
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().raw_decode


class UntrustedLedger(ConfigError):
    """The ledger is missing, cut, damaged, or older than the folder: earlier payments are unknown."""


@attrs.define
class ReadPosition:
    """The part of a ledger that was read: ``end`` bytes of whole rows, their checksum, the bytes of a torn end.

    ``mark`` is the high-water mark that it must reach.
    """

    end: int = 0
    chain: int = 0
    torn: int = 0
    mark: Mark | None = None


ON_THE_WAY = frozenset({b'{"row":"intent"', b'{"row":"staged"'})
ON_RESUME = ON_THE_WAY | {b'{"row":"done","'}
"""Beginnings of rows of which some readers need the head alone: the keys before ``n``. In a text they would be escaped.
"""

_HEAD_ENDS = b',"n":'


def rows(path: Path, read: ReadPosition, *, heads: frozenset[bytes] = frozenset()) -> Iterator[tuple[int, Row]]:
    """Yield each row with its position in the file; nothing without a file. Raises UntrustedLedger.

    ``heads``: rows of which only the head is decoded; decoding is most of the time of reading a ledger.
    """
    marked = read.mark.size if read.mark is not None else 0
    end, chain, chain_at_mark = 0, 0, 0
    if (file := _open_ledger(path)) is not None:
        with file:
            for line in file:
                body = line[HEAD:-1]
                chain = crc32(body, chain)  # of all rows so far: a row that was removed or moved breaks it
                if line[:HEAD] != b"%08x %08x " % (crc32(body), chain) or line[-1:] != b"\n":
                    read.torn = _torn_bytes(path, end, read.mark)
                    break
                if body[:15] in heads:
                    body = body[: body.index(_HEAD_ENDS)] + b"}"
                yield end, parse_row(body)
                end += len(line)
                read.end, read.chain = end, chain
                if end == marked:  # the mark always stands between two rows
                    chain_at_mark = chain
    if marked and end < marked:
        size = "is missing" if file is None else f"has {end:,} valid bytes"
        raise untrusted_ledger(path, f"{size}, but had {marked:,} before: it was cut or removed, or is an older copy")
    if read.mark is not None and chain_at_mark != read.mark.chain:
        raise untrusted_ledger(path, "is not the ledger that this folder had before")


def _open_ledger(path: Path) -> BinaryIO | None:
    """Open a ledger for reading; None if there is none. Raises UntrustedLedger if it can't be read."""
    try:
        return open_plain(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise untrusted_ledger(path, f"can't be read ({reason})") from None


def parse_row(body: bytes) -> Row:
    """Return a row's JSON after its checksum was verified."""
    row: Row = _decode(body.decode("ascii"))[0]
    return row


def _torn_bytes(path: Path, at: int, mark: Mark | None) -> int:
    """Return the size of a torn last row. Raises UntrustedLedger for any other damage.

    A write that was cut short has no line end. After a machine crash there may be pages of zeros among rows that were
    not on the disk yet: only the mark shows which these are.
    """
    with path.open("rb") as file:
        before = file.read(at)
        rest = file.read()
    lines = rest.splitlines(keepends=True)
    whole = any(_ROW.fullmatch(line) and int(line[:8], 16) == crc32(line[HEAD:-1]) for line in lines[1:])
    if mark is not None:
        is_torn = at >= mark.size and (b"\n" not in rest or _LOST in rest)
    else:
        longest = max(map(len, before.splitlines()), default=0)
        is_torn = b"\n" not in rest and len(rest) - len(rest.rstrip(b"\0")) <= longest
    if whole or not is_torn:
        raise untrusted_ledger(path, f"is damaged at byte {at:,}, before its end")
    return len(rest)


def untrusted_ledger(path: Path, reason: str) -> UntrustedLedger:
    """Return the error for a ledger that can't be trusted, with what to do."""
    return UntrustedLedger(
        f"the ledger {str(path)!r} {reason}: it is unknown which images were paid for, and nothing was sent. Put back"
        " an up-to-date copy of it; or run the rows that results.jsonl and errors.jsonl do not name in a new folder;"
        " or start over in this one with --start-over, which pays for images again (with --join give"
        " another folder with --staging: the bucket has what was paid for)"
    )


@attrs.define(eq=False)
class Ledger:
    """The writing end of the file. All its methods block."""

    path: Path
    disk: Disk
    high_water: HighWater | None = None
    size: int = 0
    chain: int = 0
    _file: int = -1

    def open(self, read: ReadPosition) -> None:
        """Continue after the rows that were read; a torn end is cut off. Raises OSError."""
        is_new = not self.path.exists()
        self._file = self.disk.append(self.path)
        self.size, self.chain = read.end, read.chain
        if read.torn:
            self.disk.truncate(self._file, read.end)
        if not is_new:
            self.disk.sync(self._file)  # rows of a process that was killed may be in the system's memory alone
        else:
            self.disk.sync_folder(self.path.parent)
        if self.high_water is not None:
            self.high_water.open(Mark(self.size, self.chain))

    def append(self, row: Row) -> int:
        """Write a row and return its position. Raises OSError; the file is then unchanged."""
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
        """Wait until all rows are on the disk. Raises OSError."""
        self.disk.sync(self._file)
        if self.high_water is not None:
            self.high_water.write(Mark(self.size, self.chain))

    def close(self) -> None:
        """Close the file."""
        if self.high_water is not None:
            self.high_water.close()
        file, self._file = self._file, -1  # first: a close that fails must not be repeated
        if file >= 0:
            self.disk.close(file)


def rows_at(path: Path, places: Iterable[int]) -> list[Row]:
    """Return the rows of a ledger at these positions."""
    wanted = list(places)
    if not wanted:
        return []
    file = Rows(path)
    try:
        return [file.at(place) for place in wanted]
    finally:
        file.close()


class Rows:
    """Reads single rows of a ledger by position."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def at(self, place: int) -> Row:
        """Return the row at a position."""
        self._file.seek(place)
        return parse_row(self._file.readline()[HEAD:-1])

    def close(self) -> None:
        """Close the file."""
        self._file.close()
