"""One client for each running event loop, opened at its first call and closed when the loop ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import attrs

from impasto import Client

_NAME = "_impasto_client"
"""The loop's attribute: so the client lives exactly as long, also in a forked child, where neither may be touched."""


@attrs.frozen(eq=False)
class _Kept:
    client: Client
    life: AsyncGenerator[None, None]


async def client_of_this_loop() -> Client:
    """The running loop's client. Raises ConfigError where the environment holds a wrong setting."""
    loop = asyncio.get_running_loop()
    kept: _Kept | None = getattr(loop, _NAME, None)
    if kept is None:
        client = Client()
        kept = _Kept(client, _life(loop, client))
        setattr(loop, _NAME, kept)
        await anext(kept.life)
    return kept.client


async def _life(loop: asyncio.AbstractEventLoop, client: Client) -> AsyncGenerator[None, None]:
    """Ends with the loop, which closes its async generators last of all, as ``asyncio.run`` asks it to."""
    try:
        yield
    finally:
        delattr(loop, _NAME)
        await client.aclose()
