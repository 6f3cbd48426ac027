"""A stand-in for Imagen, with a key and on Vertex AI, for tests and ``--emulator``: it checks, paints and counts.

It is written from Google's documents (see the README) and shares no code with the plugin. A word in a prompt chooses an
outcome: ``filtered`` (all images), ``one-filtered``, ``bad``, ``too-many``, ``no-access``, ``breaks``, ``slow``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from PIL import Image

MODELS = {"imagen-4.0-generate-001", "imagen-4.0-fast-generate-001", "imagen-4.0-ultra-generate-001"}
CHOICES = {
    "aspectRatio": {"1:1", "3:4", "4:3", "9:16", "16:9"},
    "sampleImageSize": {"1K", "2K"},
    "personGeneration": {"dont_allow", "allow_adult", "allow_all"},
    "safetySetting": {"block_low_and_above", "block_medium_and_above", "block_only_high", "block_none"},
}
BOOLEANS = {"includeRaiReason", "addWatermark", "enhancePrompt"}
ON_VERTEX = {"safetySetting", "addWatermark", "enhancePrompt", "seed"}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
}
FILTERED = "Your current safety filter threshold filtered out 1 generated images. Support codes: 56562880"


def paint(prompt: str, index: int, kind: str = "png", ratio: str = "1:1") -> bytes:
    """Return an image of one colour, which depends on the prompt and the index, with a certain ratio."""
    wide, high = map(int, ratio.split(":"))
    out = io.BytesIO()
    colour = hashlib.sha256(f"{prompt} {index}".encode()).digest()
    Image.new("RGB", (16 * wide, 16 * high), tuple(colour[:3])).save(out, kind)
    return out.getvalue()


def refusal(status: int, message: str, reason: str | None = None) -> web.Response:
    """Return a refusal in Google's form."""
    error: dict[str, Any] = {"code": status, "message": message, "status": STATUSES[status]}
    if reason is not None:
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
        error["details"] = [info]
    return web.json_response({"error": error}, status=status)


def check(body: Any, *, on_vertex: bool) -> str | None:
    """Return what is wrong with a request, or None."""
    match body:
        case {"instances": [{"prompt": str(prompt), **other}], "parameters": dict(parameters), **more}:
            if not prompt or other or more:
                return "Unknown name or empty prompt."
        case _:
            return "Invalid JSON payload received."
    for name, value in parameters.items():
        if name in ON_VERTEX and not on_vertex:
            return f"{name} is not supported."
        if name == "outputOptions":
            if not isinstance(value, dict) or set(value) - {"mimeType", "compressionQuality"}:
                return "Invalid outputOptions."
            if value.get("mimeType", "image/png") not in ("image/png", "image/jpeg"):
                return "Invalid mimeType."
        elif name in CHOICES:
            if value not in CHOICES[name]:
                return f"Invalid {name}."
        elif name in BOOLEANS:
            if type(value) is not bool:
                return f"Invalid {name}."
        elif name == "sampleCount":
            if type(value) is not int or not 1 <= value <= 4:
                return "sampleCount must be from 1 to 4."
        elif name == "seed":
            if type(value) is not int or not 1 <= value <= 2_147_483_647 or parameters.get("addWatermark", True):
                return "Seed is not supported when watermark is enabled."
        else:
            return f"Unknown name {name}."
    return None


class StandIn:
    """The server. ``charges`` counts images; ``tokens`` are those that it issued and that are valid still."""

    def __init__(self, key: str | None = None) -> None:
        self.key, self.url = key, ""
        self.charges = 0
        self.issued = 0
        self.busy = 0
        """Requests that are refused with 429 before one is accepted."""
        self.tokens: set[str] = {"emulator"}
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []

    async def token(self, request: web.Request) -> web.Response:
        """Answer ``POST /token``: an access token for a refresh token."""
        form = await request.post()
        names = {"client_id", "client_secret", "refresh_token", "grant_type"}
        if set(form) != names or (form["grant_type"], form["refresh_token"]) != ("refresh_token", "refresh-1"):
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.issued += 1
        self.tokens.add(f"token-{self.issued}")
        return web.json_response({"access_token": f"token-{self.issued}", "expires_in": 3599, "token_type": "Bearer"})

    async def gemini(self, request: web.Request) -> web.Response:
        """Answer ``POST /v1beta/models/{model}:predict``."""
        key = request.headers.get("x-goog-api-key", "")
        if not key:
            return refusal(403, "Method doesn't allow unregistered callers.")
        if self.key is not None and key != self.key:
            return refusal(400, "API key not valid. Please pass a valid API key.", "API_KEY_INVALID")
        return await self.predict(request, on_vertex=False)

    async def vertex(self, request: web.Request) -> web.Response:
        """Answer the path of Vertex AI."""
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return refusal(401, "Request had invalid authentication credentials.", "ACCESS_TOKEN_EXPIRED")
        return await self.predict(request, on_vertex=True)

    async def predict(self, request: web.Request, *, on_vertex: bool) -> web.Response:
        """Return images, a refusal, or what a word of the prompt asks for."""
        if request.match_info["model"] not in MODELS:
            return refusal(404, "The model is not found.")
        body = await request.json()
        self.bodies.append(body)
        self.paths.append(request.path)
        if (wrong := check(body, on_vertex=on_vertex)) is not None:
            return refusal(400, wrong)
        prompt, parameters = body["instances"][0]["prompt"], body["parameters"]
        if "bad" in prompt:
            return refusal(400, "The prompt could not be submitted.")
        if "no-access" in prompt:
            return refusal(403, "Permission denied.")
        if "too-many" in prompt or self.busy:
            self.busy = max(self.busy - 1, 0)
            return refusal(429, "Quota exceeded.")
        if "breaks" in prompt:
            return refusal(500, "Internal error.")
        if "slow" in prompt:
            await asyncio.sleep(3600)
        count, options = parameters.get("sampleCount", 4), parameters.get("outputOptions", {})
        kind = options.get("mimeType", "image/png")
        ratio = parameters.get("aspectRatio", "1:1")
        predictions: list[dict[str, str]] = []
        for index in range(count):
            if "filtered" in prompt and (index == 0 or "one-filtered" not in prompt):
                predictions += [{"raiFilteredReason": FILTERED}] if parameters.get("includeRaiReason") else []
                continue
            data = paint(prompt, index, kind.removeprefix("image/"), ratio)
            image = {"mimeType": kind, "bytesBase64Encoded": base64.b64encode(data).decode()}
            if on_vertex and parameters.get("enhancePrompt", True):
                image["prompt"] = f"{prompt}, in the evening light"
            predictions.append(image)
            self.charges += 1
        return web.json_response({"predictions": predictions})


@asynccontextmanager
async def serving(key: str | None = None) -> AsyncIterator[StandIn]:
    """Serve it on this machine and yield it. ``key``: the only one of the Gemini API that is accepted."""
    stand_in = StandIn(key)
    app = web.Application(client_max_size=1024 * 1024)
    path = "/v1/projects/{project}/locations/{location}/publishers/google/models/{model}:predict"
    app.router.add_post("/v1beta/models/{model}:predict", stand_in.gemini)
    app.router.add_post(path, stand_in.vertex)
    app.router.add_post("/token", stand_in.token)
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
