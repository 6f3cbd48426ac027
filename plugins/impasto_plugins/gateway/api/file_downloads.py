"""``images/files/{name}``: a picture that was answered as a URL."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from impasto_plugins.gateway.errors import Failure
from impasto_plugins.gateway.storage.local import ANYTHING

from .context import Exchange

_PIECE = 1 << 18


async def file(exchange: Exchange) -> web.StreamResponse:
    """The picture's own bytes. Raises Failure."""
    setup = exchange.setup
    kept = await setup.folder.find(exchange.tail) or await setup.unread.find(exchange.tail)
    if kept is None:
        raise Failure(404, "there is no such file, or it has expired", code="not_found")
    with kept.source as source:
        headers = {
            "content-type": kept.media_type,
            "content-length": str(kept.size),
            "cache-control": f"private, max-age={int(kept.seconds_left)}",
            "x-content-type-options": "nosniff",
        }
        if kept.media_type == ANYTHING:
            headers["content-disposition"] = "attachment"
        response = web.StreamResponse(headers=headers)
        with suppress(ConnectionError):  # whoever asked left
            await exchange.begin(response)
            while exchange.has_body and (piece := await asyncio.to_thread(source.read, _PIECE)):
                await response.write(piece)
            await response.write_eof()
        return response
