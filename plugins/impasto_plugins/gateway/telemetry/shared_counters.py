"""Numbers in shared memory that outlives its process; any worker reads those of all.

One writer per file, and no locks: a number is eight bytes, which are written and read at once.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

_SLOTS = 1 << 17
_NAME_BYTES = 1 << 23
_BYTES = _SLOTS * 8 + _NAME_BYTES
"""Bytes of address space; pages without data take no memory."""

Key = tuple[str, ...]
"""A metric's name and the values of its labels."""


class SharedCounters:
    """One process's numbers: ``values``, at the ``slots`` of their keys. ``path``: the file that shares them."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            self._map = mmap.mmap(-1, _BYTES)
        else:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.truncate(fd, _BYTES)
            self._map = mmap.mmap(fd, _BYTES)
            os.close(fd)
        self._view = memoryview(self._map)
        self.values = self._view[: _SLOTS * 8].cast("d")
        self.slots: dict[Key, int] = {}
        self._next = 1  # the first holds how long the names are

    def close(self) -> None:
        """Release the memory; a file stays, for the sums."""
        self.values.release()
        self._view.release()
        self._map.close()

    def read_all(self) -> Iterator[tuple[Key, list[float]]]:
        """Return all numbers."""
        return _read_counters(self._view)

    def allocate(self, key: Key, width: int) -> int:
        """Return the slot of a new key, the first of ``width``."""
        name = json.dumps([*key, width]).encode() + b"\n"
        slot, name_bytes = self._next, int(self.values[0])
        if slot + width > _SLOTS or name_bytes + len(name) > _NAME_BYTES:
            return _SLOTS - width  # no more fit: never with the names of a configuration
        self._view[_SLOTS * 8 + name_bytes : _SLOTS * 8 + name_bytes + len(name)] = name
        self.values[0] = name_bytes + len(name)
        self.slots[key], self._next = slot, slot + width
        return slot


def read_counters(path: Path) -> Iterator[tuple[Key, list[float]]]:
    """Return the numbers in another process's file. Raises OSError."""
    with (
        path.open("rb") as source,
        mmap.mmap(source.fileno(), _BYTES, access=mmap.ACCESS_READ) as memory,
        memoryview(memory) as view,
    ):
        yield from _read_counters(view)


def _read_counters(view: memoryview) -> Iterator[tuple[Key, list[float]]]:
    with view[: _SLOTS * 8].cast("d") as values:
        slot, start = 1, _SLOTS * 8
        names = bytes(view[start : start + int(values[0])])
        for line in names.splitlines():
            *key, width = json.loads(line)
            yield tuple(key), list(values[slot : slot + width])
            slot += width
