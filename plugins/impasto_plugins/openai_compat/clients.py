"""One client for each running event loop and state, opened at its first call and closed when the loop ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import attrs

from impasto import Client

_NAME = "_impasto_client"
"""The loop's attribute. The client lives as long as its loop, also in a forked child, where neither may be used."""


@attrs.frozen(eq=False)
class _LoopClient:
    client: Client
    life: AsyncGenerator[None, None]


async def client_of_this_loop(state: str | None = None) -> Client:
    """Return the running loop's client for a state. Raises ConfigError if the environment has an invalid setting."""
    loop, name = asyncio.get_running_loop(), f"{_NAME}_{state}" if state else _NAME
    holder: _LoopClient | None = getattr(loop, name, None)
    if holder is None:
        client = Client(state=state)
        holder = _LoopClient(client, _life(loop, client, name))
        setattr(loop, name, holder)
        await anext(holder.life)
    return holder.client


async def _life(loop: asyncio.AbstractEventLoop, client: Client, name: str) -> AsyncGenerator[None, None]:
    """Close the client at the end of the loop, which closes its async generators last of all."""
    try:
        yield
    finally:
        delattr(loop, name)
        await client.aclose()
