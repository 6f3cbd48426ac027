"""The body of a response from a file, which the system sends to the socket itself."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import BinaryIO

from aiohttp import web

from impasto_plugins.concurrency import to_thread_shielded


async def send_file(request: web.BaseRequest, source: BinaryIO, size: int, *, stall_seconds: float) -> None:
    """Send so many bytes of a file after the head of a response.

    Raises ConnectionError if the caller left, or reads nothing for ``stall_seconds``.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the caller left")
    # The head may wait in the transport, and comes first: with this limit a drain waits for the last byte of it.
    transport.set_write_buffer_limits(high=0)
    await request.writer.drain()
    transport.set_write_buffer_limits()
    # A descriptor of its own: a loop does not watch one of a transport. A thread sends: the disk may be slow.
    target = os.dup(transport.get_extra_info("socket").fileno())
    try:
        offset = 0
        while offset < size:
            try:
                sent = await to_thread_shielded(os.sendfile, target, source.fileno(), offset, size - offset)
            except BlockingIOError:
                await _until_writable(target, stall_seconds)
                continue
            if not sent:
                raise ConnectionAbortedError("the file became shorter while it was sent")
            offset += sent
    finally:
        os.close(target)


async def _until_writable(descriptor: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    writable: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        with suppress(asyncio.InvalidStateError):
            writable.set_result(None)

    loop.add_writer(descriptor, note)
    try:
        async with asyncio.timeout(seconds):
            await writable
    except TimeoutError:
        raise ConnectionAbortedError("the caller reads nothing") from None
    finally:
        loop.remove_writer(descriptor)
