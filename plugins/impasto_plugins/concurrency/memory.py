"""The process's memory: blocks of large images are used again, and given back to the system by ``give_back``.

glibc gives large blocks back at once and asks for them anew, which takes a sixth of the CPU of an image of 1.5 MB. With
an arena for each thread it would hold twice as much. Another C library has no such settings, and stays as it is.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT_BYTES = 256 << 20


def keep_blocks() -> None:
    """Let this process use freed blocks again."""
    if (mallopt := _function("mallopt")) is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_ARENA_MAX, 2)


def give_back() -> None:
    """Give freed blocks back to the system. Takes milliseconds: run it in a thread."""
    if (trim := _function("malloc_trim")) is not None:
        trim(ctypes.c_size_t(0))


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None), name, None)
