"""Numbers by name, in memory that outlives its process: what workers counted is summed up by whichever is asked.

One writer per file, and nothing is locked: a number is eight bytes, which are written and read at once.
"""

from __future__ import annotations

import json
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

_SLOTS = 1 << 17
_NAME_BYTES = 1 << 23
_BYTES = _SLOTS * 8 + _NAME_BYTES
"""Of address space: pages that nothing was written to take no memory."""

Key = tuple[str, ...]
"""A metric's name and the values of its labels."""


class Tally:
    """One process's numbers. ``path``: the file that shares them; without one they are this process's alone.

    ``bounds`` are the upper bounds of a histogram's buckets.
    """

    def __init__(self, bounds: Sequence[float], path: Path | None = None) -> None:
        self._bounds = bounds
        if path is None:
            self._map = mmap.mmap(-1, _BYTES)
        else:
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.truncate(number, _BYTES)
            self._map = mmap.mmap(number, _BYTES)
            os.close(number)
        self._view = memoryview(self._map)
        self._values = self._view[: _SLOTS * 8].cast("d")
        self._slots: dict[Key, int] = {}
        self._next = 1  # the first holds how long the names are

    def add(self, key: Key, amount: float = 1.0) -> None:
        """Counts."""
        self._values[self._slots.get(key) or self._slot(key, 1)] += amount

    def set(self, key: Key, value: float) -> None:
        """What is so now."""
        self._values[self._slots.get(key) or self._slot(key, 1)] = value

    def observe(self, key: Key, value: float) -> None:
        """Counts into a histogram: its buckets, then the one beyond all bounds, then the sum."""
        bounds = self._bounds
        slot = self._slots.get(key) or self._slot(key, len(bounds) + 2)
        self._values[slot + bisect_left(bounds, value)] += 1
        self._values[slot + len(bounds) + 1] += value

    def close(self) -> None:
        """Lets go of the memory; a file stays, for the sums."""
        self._values.release()
        self._view.release()
        self._map.close()

    def numbers(self) -> Iterator[tuple[Key, list[float]]]:
        """All of them."""
        return _numbers(self._view)

    def _slot(self, key: Key, width: int) -> int:
        name = json.dumps([*key, width]).encode() + b"\n"
        at, used = self._next, int(self._values[0])
        if at + width > _SLOTS or used + len(name) > _NAME_BYTES:
            return _SLOTS - width  # no more fit: never with the names of a configuration
        self._view[_SLOTS * 8 + used : _SLOTS * 8 + used + len(name)] = name
        self._values[0] = used + len(name)
        self._slots[key], self._next = at, at + width
        return at


def read(path: Path) -> Iterator[tuple[Key, list[float]]]:
    """The numbers in another process's file. Raises OSError."""
    with (
        path.open("rb") as source,
        mmap.mmap(source.fileno(), _BYTES, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        yield from _numbers(view)


def _numbers(view: memoryview) -> Iterator[tuple[Key, list[float]]]:
    with view[: _SLOTS * 8].cast("d") as values:
        slot, start = 1, _SLOTS * 8
        names = bytes(view[start : start + int(values[0])])
        for line in names.splitlines():
            *key, width = json.loads(line)
            yield tuple(key), list(values[slot : slot + width])
            slot += width
