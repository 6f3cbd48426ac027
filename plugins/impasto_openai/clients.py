"""One client for each running event loop, opened at its first call and closed when the loop ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from weakref import WeakKeyDictionary

import attrs

from impasto import Client


@attrs.frozen(eq=False)
class _Kept:
    client: Client
    life: AsyncGenerator[None, None]


_kept: WeakKeyDictionary[asyncio.AbstractEventLoop, _Kept] = WeakKeyDictionary()
_lock = threading.Lock()


async def client_of_this_loop() -> Client:
    """The running loop's client. Raises ConfigError where the environment holds a wrong setting."""
    loop = asyncio.get_running_loop()
    kept = _kept.get(loop)
    if kept is None:
        client = Client()
        kept = _Kept(client, _life(loop, client))
        with _lock:
            for ended in [each for each in _kept if each.is_closed()]:
                del _kept[ended]
            _kept[loop] = kept
        await anext(kept.life)
    return kept.client


async def _life(loop: asyncio.AbstractEventLoop, client: Client) -> AsyncGenerator[None, None]:
    """Ends with the loop, which closes its async generators last of all, as ``asyncio.run`` asks it to."""
    try:
        yield
    finally:
        with _lock:
            _kept.pop(loop, None)
        await client.aclose()
