"""A stand-in for Easel, for tests and ``--emulator``: it checks requests as Easel does, paints and counts charges."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from PIL import Image

KEY = "any-key"


def paint_image(prompt: str, seed: object, size: str = "1024x1024") -> bytes:
    """Return a PNG of one colour, which depends on the prompt and the seed."""
    width, height = map(int, size.split("x"))
    colour = hashlib.sha256(f"{prompt} {seed}".encode()).digest()
    png = io.BytesIO()
    Image.new("RGB", (width // 16, height // 16), tuple(colour[:3])).save(png, "PNG")
    return png.getvalue()


def refusal(status: int, code: str, message: str) -> web.Response:
    """Return a refusal in Easel's form."""
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


class Easel:
    """The server. ``charges`` counts charged images. ``key`` is the only one that it accepts; None accepts any.

    ``fetches`` are the answers to the next fetches of images, before real ones. ``address`` replaces the address of the
    image in an answer.
    """

    def __init__(self, key: str | None = KEY) -> None:
        self.key = key
        self.url = ""
        self.charges = 0
        self.images: dict[str, bytes] = {}
        self.fetches: list[web.Response] = []
        self.fetch_keys: list[str] = []
        self.address: str | None = None
        self.delay = 0.0

    async def paint(self, request: web.Request) -> web.Response:
        """Answer ``POST /v1/images/generations``."""
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return refusal(401, "invalid_api_key", "no such key")
        params = await request.json()
        if params.get("model") != "gouache" or not params.get("prompt"):
            return refusal(400, "invalid_request_error", "model and prompt are needed")
        if "forbidden" in params["prompt"]:
            return refusal(403, "moderation_blocked", "not this")
        await asyncio.sleep(self.delay)
        self.charges += 1
        seed = params.get("seed", self.charges)
        png = paint_image(params["prompt"], seed, params.get("size", "1024x1024"))
        if params.get("response_format") == "b64_json":
            return web.json_response({"data": [{"b64_json": base64.b64encode(png).decode(), "seed": seed}]})
        name = f"{hashlib.sha256(png).hexdigest()}.png"
        self.images[name] = png
        return web.json_response({"data": [{"url": self.address or f"{self.url}/v1/files/{name}"}]})

    async def file(self, request: web.Request) -> web.Response:
        """Answer ``GET /v1/files/NAME``."""
        self.fetch_keys.append(request.headers.get("authorization", ""))
        if self.fetches:
            return self.fetches.pop(0)
        png = self.images.get(request.match_info["name"])
        if png is None:
            return refusal(404, "not_found", "no such image")
        return web.Response(body=png, content_type="image/png")


@asynccontextmanager
async def serving(key: str | None = KEY) -> AsyncIterator[Easel]:
    """Serve Easel and yield it."""
    easel = Easel(key)
    app = web.Application()
    app.router.add_post("/v1/images/generations", easel.paint)
    app.router.add_get("/v1/files/{name}", easel.file)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        easel.url = f"http://{host}:{port}"
        yield easel
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    """Serve for ``--emulator`` and yield the base URL."""
    async with serving(key=None) as easel:
        yield easel.url
