"""A stand-in for Nova Canvas on Bedrock, for tests and ``--emulator``: it checks, paints and counts charges.

It is written from AWS's user guide (see the README) and shares no code with the plugin. A word in a prompt chooses an
outcome: ``forbidden``, ``blocked`` (all images), ``one-blocked``, ``throttled``, ``no-access``, ``breaks``, ``slow``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from PIL import Image

MODEL = "amazon.nova-canvas-v1:0"
SIDES = {"width", "height"}
CONFIG = {"quality", "cfgScale", "seed", "numberOfImages"}
TASKS: dict[str, tuple[str, set[str], set[str]]] = {
    "TEXT_IMAGE": (
        "textToImageParams",
        {"text", "negativeText", "style", "conditionImage", "controlMode", "controlStrength"},
        CONFIG | SIDES,
    ),
    "IMAGE_VARIATION": (
        "imageVariationParams",
        {"images", "text", "negativeText", "similarityStrength"},
        CONFIG | SIDES,
    ),
    "INPAINTING": ("inPaintingParams", {"image", "text", "negativeText", "maskPrompt", "maskImage"}, CONFIG),
    "BACKGROUND_REMOVAL": ("backgroundRemovalParams", {"image"}, set()),
}
"""For each task the name of its object, and the fields of that and of ``imageGenerationConfig``."""
REQUIRED = {"TEXT_IMAGE": {"text"}, "IMAGE_VARIATION": {"images"}, "INPAINTING": {"image"}}
RANGES = {"cfgScale": (1.1, 10), "controlStrength": (0, 1), "similarityStrength": (0.2, 1)}
WHOLE = {"seed": (0, 858_993_459), "numberOfImages": (1, 5), "width": (320, 4096), "height": (320, 4096)}
CHOICES = {
    "quality": {"standard", "premium"},
    "controlMode": {"CANNY_EDGE", "SEGMENTATION"},
    "style": {
        *("3D_ANIMATED_FAMILY_FILM", "DESIGN_SKETCH", "FLAT_VECTOR_ILLUSTRATION", "GRAPHIC_NOVEL_ILLUSTRATION"),
        *("MAXIMALISM", "MIDCENTURY_RETRO", "PHOTOREALISM", "SOFT_DIGITAL_PAINTING"),
    },
}
FILTER = "This request has been blocked by our content filters. Please adjust your text prompt to submit a new request."


def paint(prompt: str, seed: int, index: int, size: tuple[int, int] = (1024, 1024)) -> bytes:
    """Return an image of one colour, a sixteenth of its size, which depends on the prompt, the seed and the index."""
    colour = hashlib.sha256(f"{prompt} {seed} {index}".encode()).digest()
    out = io.BytesIO()
    Image.new("RGB", (size[0] // 16, size[1] // 16), tuple(colour[:3])).save(out, "png")
    return out.getvalue()


def refusal(status: int, code: str, message: str) -> web.Response:
    """Return a refusal in AWS's form."""
    headers = {"x-amzn-errortype": f"{code}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    return web.json_response({"message": message}, status=status, headers=headers)


def check_value(name: str, value: Any) -> str | None:
    """Return what is wrong with the value of one field, or None."""
    if name in ("text", "negativeText", "maskPrompt"):
        return None if isinstance(value, str) and 1 <= len(value) <= 1024 else "must have 1 to 1024 characters"
    if name in WHOLE or name in RANGES:
        low, high = (WHOLE | RANGES)[name]
        is_number = type(value) is int or (name in RANGES and type(value) is float)
        if not is_number or not low <= value <= high or (name in SIDES and value % 16):
            return f"must be from {low} to {high}" + (" and a multiple of 16" if name in SIDES else "")
        return None
    if name in CHOICES:
        return None if value in CHOICES[name] else f"must be one of {sorted(CHOICES[name])}"
    images = value if name == "images" else [value]
    if not isinstance(images, list) or not 1 <= len(images) <= 5:
        return "must have 1 to 5 images"
    for each in images:
        try:
            with Image.open(io.BytesIO(base64.b64decode(each, validate=True))) as image:
                image.load()
                if image.format not in ("PNG", "JPEG"):
                    return "must be PNG or JPEG"
                if name == "maskImage" and set(image.convert("L").tobytes()) - {0, 255}:
                    return "must be pure black and white"
        except (ValueError, TypeError, OSError):
            return "must be an image in base64"
    return None


def check(body: Any) -> str | None:
    """Return what is wrong with a request, or None."""
    if not isinstance(body, dict) or body.get("taskType") not in TASKS:
        return "taskType: unknown"
    task = body["taskType"]
    group, names, config_names = TASKS[task]
    params, config = body.get(group), body.get("imageGenerationConfig", {})
    if set(body) - {"taskType", group, "imageGenerationConfig"} or not isinstance(params, dict):
        return f"{task} needs {group} and nothing of other tasks"
    if not isinstance(config, dict) or set(config) - config_names or set(params) - names:
        return "extraneous key is not permitted"
    if missing := REQUIRED.get(task, {"image"}) - set(params):
        return f"required key {sorted(missing)} not found"
    for name, value in {**params, **config}.items():
        if (wrong := check_value(name, value)) is not None:
            return f"{name} {wrong}"
    if task == "INPAINTING" and ("maskPrompt" in params) == ("maskImage" in params):
        return "exactly one of maskPrompt and maskImage is needed"
    width, height = config.get("width", 1024), config.get("height", 1024)
    if max(width, height) > 4 * min(width, height) or width * height > 4_194_304:
        return "unsupported resolution"
    return None


class StandIn:
    """The server. ``charges`` counts images; ``bodies`` and ``authorizations`` are those of each request."""

    def __init__(self) -> None:
        self.url = ""
        self.charges = 0
        self.busy = 0
        """Requests that are throttled before one is accepted."""
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str] = []

    async def invoke(self, request: web.Request) -> web.Response:
        """Answer ``POST /model/{model}/invoke``."""
        answer = await self.answer(request)
        answer.headers["x-amzn-requestid"] = str(uuid.uuid4())
        return answer

    async def answer(self, request: web.Request) -> web.Response:
        """Return images, a refusal, or what a word of the prompt asks for."""
        signature = request.headers.get("authorization", "")
        if not signature.startswith(("AWS4-HMAC-SHA256 Credential=", "Bearer ")):
            return refusal(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        if not request.match_info["model"].startswith((MODEL, "arn:aws:bedrock:")):
            return refusal(400, "ValidationException", "The provided model identifier is invalid.")
        try:
            body = json.loads(await request.read())
        except ValueError:
            return refusal(400, "ValidationException", "Malformed input request, please reformat your input.")
        self.bodies.append(body)
        self.authorizations.append(signature)
        if (wrong := check(body)) is not None:
            return refusal(400, "ValidationException", f"Malformed input request: {wrong}")
        prompt = str(body[TASKS[body["taskType"]][0]].get("text", ""))
        if "forbidden" in prompt:
            return refusal(400, "ValidationException", FILTER)
        if "no-access" in prompt:
            return refusal(403, "AccessDeniedException", "You don't have access to the model.")
        if "throttled" in prompt or self.busy:
            self.busy = max(self.busy - 1, 0)
            return refusal(429, "ThrottlingException", "Too many requests, please wait before trying again.")
        if "breaks" in prompt:
            return refusal(500, "InternalServerException", "The system encountered an unexpected error.")
        if "slow" in prompt:
            await asyncio.sleep(3600)
        config = body.get("imageGenerationConfig", {})
        size = config.get("width", 1024), config.get("height", 1024)
        count, seed = config.get("numberOfImages", 1), config.get("seed", 12)
        self.charges += count
        if "one-blocked" in prompt and count > 1:
            count, error = count - 1, "Some of the generated images have been blocked by our content filters."
        elif "blocked" in prompt:
            count, error = 0, "All of the generated images have been blocked by our content filters."
        else:
            error = None
        images = [base64.b64encode(paint(prompt, seed, index, size)).decode() for index in range(count)]
        return web.json_response({"images": images, "error": error})


@asynccontextmanager
async def serving() -> AsyncIterator[StandIn]:
    """Serve it on this machine and yield it."""
    stand_in = StandIn()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/model/{model}/invoke", stand_in.invoke)
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
