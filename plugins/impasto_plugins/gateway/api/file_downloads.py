"""``images/files/{name}``: the images behind URLs in responses."""

from __future__ import annotations

import logging
from contextlib import suppress

from aiohttp import web

from impasto.ext import StateError
from impasto_plugins.gateway.errors import APIError, overloaded
from impasto_plugins.gateway.http.file_body import send_file
from impasto_plugins.gateway.storage.contents import StoreError
from impasto_plugins.gateway.storage.local import UNKNOWN_TYPE

from .context import RequestContext

_log = logging.getLogger("impasto.gateway")


async def download_file(context: RequestContext) -> web.StreamResponse:
    """Send an image's own bytes. Raises APIError."""
    places, name = context.runtime.places, context.path_name
    uploads = context.services.idempotency.store.uploads
    try:
        stored_file = await places.folder.find(name) or await places.salvage.find(name)
        is_awaited = stored_file is None and places.shared and await uploads.are_awaited()
    except (StoreError, StateError) as error:
        _log.error("a stored image can't be read: %s", error)
        message = "the gateway can't read stored images now, try again"
        raise overloaded(message) from None
    if is_awaited:
        message = "this file is not in the bucket, and a replica has files that it uploads as soon as it can, try again"
        raise overloaded(message)
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
            if context.wants_body:
                stall_seconds = context.runtime.config.general.write_seconds
                await send_file(context.request, source, stored_file.size, stall_seconds=stall_seconds)
            await response.write_eof()
        return response
