"""What somebody writes by hand to put the provider behind OpenAI's API: aiohttp and only the translation.

``python -m benchmarks.floors.relay URL [--workers N]``: no keys, no checks, no limits, no log, no retries.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from .loop import KEY, session

GENERATE, EDIT = "/v2beta/stable-image/generate/core", "/v2beta/stable-image/edit/erase"
_CALLS = web.AppKey("calls", aiohttp.ClientSession)
_URL = web.AppKey("url", str)


async def generations(request: web.Request) -> web.Response:
    """``POST /v1/images/generations``."""
    asked = await request.json()
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("prompt", asked["prompt"])
    return await _relayed(request, GENERATE, form)


async def edits(request: web.Request) -> web.Response:
    """``POST /v1/images/edits``; aiohttp keeps the upload on disk meanwhile."""
    asked = await request.post()
    image = asked["image"]
    assert isinstance(image, web.FileField)
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("image", image.file, filename="image.png", content_type="image/png")
    return await _relayed(request, EDIT, form)


async def _relayed(request: web.Request, path: str, form: aiohttp.FormData) -> web.Response:
    headers = {"authorization": f"Bearer {KEY}", "accept": "application/json"}  # its base64 is passed through
    async with request.app[_CALLS].post(request.app[_URL] + path, data=form, headers=headers) as response:
        response.raise_for_status()
        image = json.loads(await response.read())["image"]
    body = b'{"created":%d,"data":[{"b64_json":"%s"}]}' % (time.time(), image.encode())
    return web.Response(body=body, content_type="application/json")


async def _with_session(app: web.Application) -> AsyncIterator[None]:
    async with session() as calls:
        app[_CALLS] = calls
        yield


def relaying(url: str) -> web.Application:
    """The relay in front of a provider."""
    app = web.Application(client_max_size=64 << 20)
    app[_URL] = url
    app.cleanup_ctx.append(_with_session)
    app.add_routes([web.post("/v1/images/generations", generations), web.post("/v1/images/edits", edits)])
    return app


def _serve(url: str, listening: socket.socket) -> None:
    web.run_app(
        relaying(url),
        sock=listening,
        print=None,
        access_log=None,
        loop=_new_loop(),
    )


def _new_loop() -> asyncio.AbstractEventLoop:
    """The loop that ours runs on."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _listening(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    made.listen(1024)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    first = _listening(0)
    port = first.getsockname()[1]
    sockets = [first, *(_listening(port) for _ in range(1, asked.workers))]
    print(f"http://127.0.0.1:{port}", flush=True)
    for each in sockets[1:]:
        if os.fork() == 0:
            first = each
            break
    _serve(asked.url, first)
