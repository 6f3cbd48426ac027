"""The high-water mark: how much of the ledger is on the disk, in a file outside the ledger's own folder.

It proves that the ledger is whole. A ledger that is shorter than the mark, or differs from it, was cut, damaged,
removed, or is an older copy: later payments are not in it. The mark is written after each sync of the ledger and not
synced itself: it costs a few microseconds, survives a killed process, may lag behind after a power loss, and is never
ahead of the ledger.
"""

from __future__ import annotations

import re
from pathlib import Path
from zlib import crc32

import attrs

from .filesystem import Disk, open_plain

_LENGTH = 35
_LINE = re.compile(rb"([0-9a-f]{16} [0-9a-f]{8}) ([0-9a-f]{8})\n")


@attrs.frozen
class Mark:
    """``size`` bytes of the ledger are on the disk; ``chain`` is the checksum of all rows in them."""

    size: int
    chain: int

    @classmethod
    def read(cls, path: Path) -> Mark | None:
        """Return the mark, or None if it is missing or damaged. Raises OSError."""
        try:
            with open_plain(path) as file:
                line = file.read(_LENGTH + 1)
        except FileNotFoundError:
            return None
        return cls.parse(line)

    @classmethod
    def parse(cls, line: bytes) -> Mark | None:
        """Return the mark in a line, or None if the line is invalid."""
        if (found := _LINE.fullmatch(line)) is None or crc32(found[1]) != int(found[2], 16):
            return None
        size, chain = found[1].split()
        return cls(int(size, 16), int(chain, 16))

    @property
    def line(self) -> bytes:
        """Return the mark as a line of fixed length."""
        text = b"%016x %08x" % (self.size, self.chain)
        return b"%b %08x\n" % (text, crc32(text))


@attrs.define(eq=False)
class HighWater:
    """The file of the mark, open for writing. All its methods block and raise OSError."""

    path: Path
    disk: Disk
    _file: int = -1

    def open(self, mark: Mark) -> None:
        """Open the file, and write a mark that is on the disk before any row follows."""
        is_new = not self.path.exists()
        self._file = self.disk.create(self.path) if is_new else self.disk.reopen(self.path)
        if not is_new and self.path.stat().st_size != _LENGTH:
            self.disk.truncate(self._file, 0)
        self.write(mark)
        self.disk.sync(self._file)
        if is_new:
            self.disk.sync_folder(self.path.parent)

    def write(self, mark: Mark) -> None:
        """Write a mark after the ledger is on the disk up to it."""
        self.disk.overwrite(self._file, mark.line)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, -1  # first: a close that fails must not be repeated
        if file >= 0:
            self.disk.close(file)
