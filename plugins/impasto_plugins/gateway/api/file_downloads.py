"""``images/files/{name}``: the images behind URLs in responses."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.storage.local import UNKNOWN_TYPE

from .context import RequestContext

_CHUNK_BYTES = 1 << 18


async def download_file(context: RequestContext) -> web.StreamResponse:
    """Send an image's own bytes. Raises APIError."""
    runtime = context.runtime
    stored_file = await runtime.local_store.find(context.path_name) or await runtime.salvage_store.find(
        context.path_name
    )
    if stored_file is None:
        raise APIError(404, "unknown file: it does not exist, or has expired", code="not_found")
    with stored_file.source as source:
        headers = {
            "content-type": stored_file.media_type,
            "content-length": str(stored_file.size),
            "cache-control": f"private, max-age={int(stored_file.seconds_left)}",
            "x-content-type-options": "nosniff",
        }
        if stored_file.media_type in (UNKNOWN_TYPE, "image/svg+xml"):  # a browser runs scripts in an SVG
            headers["content-disposition"] = "attachment"
        response = web.StreamResponse(headers=headers)
        with suppress(ConnectionError):  # the caller left
            await context.begin(response)
            while context.wants_body and (chunk := await asyncio.to_thread(source.read, _CHUNK_BYTES)):
                await response.write(chunk)
            await response.write_eof()
        return response
