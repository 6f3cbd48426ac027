"""A stand-in for OpenAI's image API, for tests and ``--emulator``: it checks, paints and counts tokens.

It is written from OpenAI's API description (see the README) and shares no code with the plugin. A word in a prompt
chooses an outcome: ``forbidden``, ``no-quota``, ``too-many``, ``breaks``, ``one-fewer`` (an image less than asked for),
``slow``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from PIL import Image

MODELS = ("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5")
SIZES = ("auto", "1024x1024", "1536x1024", "1024x1536")
CHOICES = {
    "size": SIZES,
    "quality": ("auto", "low", "medium", "high"),
    "background": ("auto", "transparent", "opaque"),
    "output_format": ("png", "jpeg", "webp"),
}
RANGES = {"n": (1, 10), "output_compression": (0, 100), "partial_images": (0, 3)}
GENERATION = {"prompt", "model", "user", "stream", "moderation", *CHOICES, *RANGES}
EDIT = {*GENERATION, "input_fidelity", "image", "image[]", "mask"} - {"moderation"}
TOKENS = {"low": 272, "medium": 1056, "high": 4160}
"""Output tokens of a square image; this stand-in takes them for every size."""


def paint(prompt: str, index: int, size: str = "1024x1024", kind: str = "png") -> bytes:
    """Return an image of one colour, a sixteenth of its size, which depends on the prompt and the index."""
    width, height = map(int, size.split("x"))
    colour = hashlib.sha256(f"{prompt} {index}".encode()).digest()
    out = io.BytesIO()
    Image.new("RGB", (width // 16, height // 16), tuple(colour[:3])).save(out, kind)
    return out.getvalue()


def refusal(status: int, message: str, code: str | None, param: str | None = None, **headers: str) -> web.Response:
    """Return a refusal in OpenAI's form."""
    kind = {400: "invalid_request_error", 429: "requests", 500: "server_error"}.get(status, "invalid_request_error")
    if code == "moderation_blocked":
        kind = "image_generation_user_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


def check(fields: Mapping[str, Any], known: set[str]) -> web.Response | None:
    """Return the refusal of the first wrong field, or None."""
    for name in sorted(fields.keys() - known):
        return refusal(400, f"Unknown parameter: '{name}'.", "unknown_parameter", name)
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not 1 <= len(prompt) <= 32_000:
        return refusal(400, "Invalid 'prompt'.", "invalid_value", "prompt")
    if fields.get("model") not in MODELS:
        return refusal(400, "The model does not exist.", "model_not_found", "model")
    choices = {**CHOICES, "moderation": ("auto", "low"), "input_fidelity": ("low", "high")}
    for name, allowed in choices.items():
        if name in fields and fields[name] not in allowed:
            return refusal(400, f"Invalid value for '{name}'.", "invalid_value", name)
    for name, (low, high) in RANGES.items():
        if name in fields and (type(fields[name]) is not int or not low <= fields[name] <= high):
            return refusal(400, f"Invalid type or value for '{name}'.", "integer_out_of_range", name)
    if fields.get("background") == "transparent" and fields.get("output_format") == "jpeg":
        return refusal(400, "Transparent needs png or webp.", "invalid_value", "background")
    if "input_fidelity" in fields and fields["model"] == "gpt-image-1-mini":
        return refusal(400, "Not supported by this model.", "invalid_input_fidelity_model", "input_fidelity")
    return None


class StandIn:
    """The server. ``charges`` counts images; ``requests`` has the path and the fields of each request."""

    def __init__(self, key: str | None = None) -> None:
        self.key, self.url = key, ""
        self.charges = 0
        self.busy = 0
        """Requests that are refused with 429 before one is accepted."""
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.images: list[tuple[str, bytes]] = []

    def refuse(self, request: web.Request) -> web.Response | None:
        """Return the refusal of a request without a valid key."""
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not key or (self.key is not None and key != self.key):
            return refusal(401, f"Incorrect API key provided: {key}.", "invalid_api_key")
        return None

    async def generate(self, request: web.Request) -> web.Response:
        """Answer ``POST /v1/images/generations``."""
        if (refused := self.refuse(request)) is not None:
            return refused
        if request.content_type != "application/json":
            return refusal(400, "Content-Type must be application/json.", None)
        fields = await request.json()
        self.requests.append((request.path, fields))
        return check(fields, GENERATION) or await self.answer(fields, [])

    async def edit(self, request: web.Request) -> web.Response:
        """Answer ``POST /v1/images/edits``."""
        if (refused := self.refuse(request)) is not None:
            return refused
        if request.content_type != "multipart/form-data":
            return refusal(400, "Content-Type must be multipart/form-data.", None)
        fields: dict[str, Any] = {}
        files: list[tuple[str, bytes]] = []
        form = await request.post()
        for name, value in form.items():
            if isinstance(value, web.FileField):
                files.append((name, value.file.read()))
            else:
                fields[name] = int(value) if name in RANGES and value.isdigit() else value
        self.requests.append((request.path, fields))
        self.images = files
        names = [name for name, _ in files]
        if (wrong := check(fields, EDIT)) is not None:
            return wrong
        if not set(names) <= {"image", "image[]", "mask"} or names.count("image") > 1 or names.count("mask") > 1:
            return refusal(400, "Duplicate or unknown file; use image[] for several.", "invalid_value", "image")
        if not 1 <= len(names) - names.count("mask") <= 16:
            return refusal(400, "1 to 16 images are needed.", "invalid_value", "image")
        for name, data in files:
            try:
                with Image.open(io.BytesIO(data)) as image:
                    kind = image.format
            except OSError:
                kind = None
            if kind not in (("PNG",) if name == "mask" else ("PNG", "JPEG", "WEBP")):
                return refusal(400, f"Invalid file '{name}'.", "invalid_image_file", name)
        return await self.answer(fields, files)

    async def answer(self, fields: Mapping[str, Any], files: Sequence[object]) -> web.Response:
        """Return images, or what a word of the prompt asks for."""
        prompt, count = fields["prompt"], fields.get("n", 1)
        if "forbidden" in prompt:
            return refusal(400, "Your request was rejected by the safety system.", "moderation_blocked")
        if "no-quota" in prompt:
            return refusal(429, "You exceeded your current quota.", "insufficient_quota")
        if "too-many" in prompt or self.busy:
            self.busy = max(self.busy - 1, 0)
            return refusal(429, "Rate limit reached.", "rate_limit_exceeded", **{"retry-after": "1"})
        if "breaks" in prompt:
            return refusal(500, "The server had an error.", None)
        if "slow" in prompt:
            await asyncio.sleep(3600)
        count -= "one-fewer" in prompt
        self.charges += count
        size, quality = fields.get("size", "auto"), fields.get("quality", "auto")
        size, quality = "1024x1024" if size == "auto" else size, "high" if quality == "auto" else quality
        kind = fields.get("output_format", "png")
        images = [base64.b64encode(paint(prompt, index, size, kind)).decode() for index in range(count)]
        text, image, out = len(prompt.split()), 323 * len(files), TOKENS[quality] * count
        usage = {
            "input_tokens": text + image,
            "input_tokens_details": {"text_tokens": text, "image_tokens": image},
            "output_tokens": out,
            "total_tokens": text + image + out,
        }
        body = {"created": int(time.time()), "data": [{"b64_json": each} for each in images], "usage": usage}
        about = {"size": size, "quality": quality, "output_format": kind, "background": "opaque"}
        if fields.get("stream") in (True, "true"):
            kind = "image_edit" if files else "image_generation"
            rest = {"created_at": int(time.time()), **about}
            events = [
                {"type": f"{kind}.partial_image", "b64_json": images[0], "partial_image_index": index, **rest}
                for index in range(fields.get("partial_images", 0))
            ]
            events.append({"type": f"{kind}.completed", "b64_json": images[0], "usage": usage, **rest})
            text_of_events = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
            return web.Response(text=text_of_events, content_type="text/event-stream")
        return web.json_response({**body, **about}, headers={"x-request-id": f"req_{len(self.requests)}"})


@asynccontextmanager
async def serving(key: str | None = None) -> AsyncIterator[StandIn]:
    """Serve it on this machine and yield it. ``key``: the only one that is accepted; None accepts any."""
    stand_in = StandIn(key)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/images/generations", stand_in.generate)
    app.router.add_post("/v1/images/edits", stand_in.edit)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        stand_in.url = f"http://{host}:{port}"
        yield stand_in
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    """Serve for ``--emulator`` and yield the base URL."""
    async with serving() as stand_in:
        yield stand_in.url
