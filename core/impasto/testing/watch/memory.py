"""A watch for memory that a plugin holds after its calls."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Awaitable, Callable

MOST_HELD = 1 << 19
"""Bytes that may be in use after calls: libraries have buffers."""
_LARGE = 1 << 20
_CALLS, _TRIES = 3, 3


async def held_bytes(call: Callable[[int], Awaitable[object]]) -> int:
    """Return how much more memory is in use after several calls than before.

    ``call`` makes one whose file and answer have so many bytes.
    """
    growth = 0
    for _ in range(_TRIES):  # another thread may need some meanwhile, but hardly each time
        await call(1)
        gc.collect()
        tracemalloc.start()
        try:
            for number in range(_CALLS):
                await call(_LARGE + number)
            gc.collect()
            growth, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        if growth < MOST_HELD:
            break
    return growth
