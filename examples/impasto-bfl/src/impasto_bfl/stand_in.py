"""A stand-in for the API of Black Forest Labs, for tests and ``--emulator``: it checks, paints and counts charges.

It is written from the public contract (see the README) and shares no code with the plugin. A word in a prompt chooses
an outcome: ``request-moderated``, ``content-moderated``, ``job-fails``, ``no-credits``, ``too-many``, ``slow``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from PIL import Image

FIELDS = {"prompt", "seed", "width", "height", "safety_tolerance", "output_format", "webhook_url", "webhook_secret"}
IMAGE_NAMES = ("input_image", *(f"input_image_{number}" for number in range(2, 9)))
LIMIT = 4 * 1024 * 1024


def paint(prompt: str, seed: int, width: int, height: int, kind: str) -> bytes:
    """Return an image of one colour, which depends on the prompt and the seed."""
    colour = hashlib.sha256(f"{prompt} {seed}".encode()).digest()
    out = io.BytesIO()
    Image.new("RGB", (width, height), tuple(colour[:3])).save(out, kind)
    return out.getvalue()


def check(model: str, body: Any) -> list[dict[str, Any]]:
    """Return what is wrong with the body of a request, in the form of a validation error."""
    if not isinstance(body, dict):
        return [{"loc": ["body"], "msg": "Input should be a valid dictionary", "type": "model_attributes_type"}]
    wrong: list[tuple[str, str]] = []
    names = IMAGE_NAMES[:4] if "klein" in model else IMAGE_NAMES
    wrong += [(name, "Extra inputs are not permitted") for name in sorted(body.keys() - FIELDS - set(names))]
    if not isinstance(body.get("prompt"), str):
        wrong.append(("prompt", "Input should be a valid string"))
    for name in ("width", "height"):
        value = body.get(name)
        if value is not None and (type(value) is not int or value < 64 or value % 16):
            wrong.append((name, "Input should be a multiple of 16, at least 64"))
    if not wrong and (body.get("width") or 1024) * (body.get("height") or 1024) > LIMIT:
        wrong.append(("width", "at most 4 megapixels"))
    tolerance, seed = body.get("safety_tolerance"), body.get("seed")
    if tolerance is not None and (type(tolerance) is not int or not 0 <= tolerance <= 5):
        wrong.append(("safety_tolerance", "Input should be from 0 to 5"))
    if seed is not None and type(seed) is not int:
        wrong.append(("seed", "Input should be a valid integer"))
    if body.get("output_format", "jpeg") not in ("jpeg", "png", None):
        wrong.append(("output_format", "Input should be 'jpeg' or 'png'"))
    for number, name in enumerate(names):
        if body.get(name) is None:
            continue
        if number and body.get(names[number - 1]) is None:
            wrong.append((name, f"needs {names[number - 1]}"))
        try:
            with Image.open(io.BytesIO(base64.b64decode(body[name], validate=True))) as image:
                image.load()
        except (ValueError, TypeError, OSError):
            wrong.append((name, "not an image in base64"))
    return [{"loc": ["body", name], "msg": f"{name}: {text}", "type": "value_error"} for name, text in wrong]


class Job:
    """A submitted job: its end, and its polls until then."""

    def __init__(self, status: str, image: bytes, kind: str, polls: int) -> None:
        self.status, self.image, self.kind, self.polls = status, image, kind, polls
        self.signature = uuid.uuid4().hex


class StandIn:
    """Three servers: the API, its region where jobs run, and the delivery of images. ``charges`` counts credits."""

    def __init__(self, key: str | None = None) -> None:
        self.key, self.url, self.region, self.delivery = key, "", "", ""
        self.charges = 0
        self.jobs: dict[str, Job] = {}
        self.bodies: list[dict[str, Any]] = []
        self.keys: dict[str, list[str | None]] = {"api": [], "region": [], "delivery": []}
        self.busy = 0
        """Submissions that are refused with 429 before one is accepted."""

    def refuse(self, request: web.Request, place: str) -> web.Response | None:
        """Return the refusal of a request without a valid key."""
        key = request.headers.get("x-key")
        self.keys[place].append(key)
        if not key or (self.key is not None and key != self.key):
            return web.json_response({"detail": f"Not authenticated: {key}"}, status=403 if not key else 401)
        return None

    async def submit(self, request: web.Request) -> web.Response:
        """Answer ``POST /v1/MODEL``."""
        if (refusal := self.refuse(request, "api")) is not None:
            return refusal
        if request.content_type != "application/json":
            return web.json_response({"detail": "Unsupported media type"}, status=422)
        body = await request.json()
        if wrong := check(request.match_info["model"], body):
            return web.json_response({"detail": wrong}, status=422)
        prompt = body["prompt"]
        if "no-credits" in prompt:
            return web.json_response({"detail": "Insufficient credits"}, status=402)
        if "too-many" in prompt or self.busy:
            self.busy = max(self.busy - 1, 0)
            return web.json_response({"detail": "Too many requests"}, status=429, headers={"retry-after": "1"})
        self.bodies.append(body)
        outcomes = {"request-moderated": "Request Moderated", "content-moderated": "Content Moderated"}
        outcomes |= {"job-fails": "Error", "unknown-job": "Task not found"}
        status = next((outcome for word, outcome in outcomes.items() if word in prompt), "Ready")
        kind = body.get("output_format") or "jpeg"
        width, height = body.get("width") or 1024, body.get("height") or 1024
        image = paint(prompt, body.get("seed") or len(self.jobs), width, height, kind) if status == "Ready" else b""
        name = str(uuid.uuid4())
        self.jobs[name] = Job(status, image, kind, 1_000_000 if "slow" in prompt else 1)
        credits = 3.0 if status == "Ready" else 0.0
        self.charges += int(credits)
        answer = {"id": name, "polling_url": f"{self.region}/v1/get_result?id={name}", "cost": credits}
        return web.json_response({**answer, "input_mp": 0.0, "output_mp": round(width * height / 2**20, 2)})

    async def poll(self, request: web.Request) -> web.Response:
        """Answer ``GET /v1/get_result?id=ID`` in the job's region."""
        if (refusal := self.refuse(request, "region")) is not None:
            return refusal
        name = request.query.get("id", "")
        job = self.jobs.get(name)
        if job is None:
            return web.json_response({"id": name, "status": "Task not found", "result": None}, status=404)
        job.polls -= 1
        status = "Pending" if job.polls >= 0 else job.status
        address = f"{self.delivery}/results/{name}/sample.{job.kind}?sig={job.signature}&se=600"
        return web.json_response(
            {"id": name, "status": status, "result": {"sample": address} if status == "Ready" else None}
        )

    async def deliver(self, request: web.Request) -> web.Response:
        """Answer the signed address of an image, which needs no key."""
        self.keys["delivery"].append(request.headers.get("x-key"))
        job = self.jobs.get(request.match_info["name"])
        if job is None or request.query.get("sig") != job.signature:
            return web.Response(status=403, text="<Error><Code>AuthenticationFailed</Code></Error>")
        return web.Response(body=job.image, content_type=f"image/{job.kind}")


@asynccontextmanager
async def serving(key: str | None = None) -> AsyncIterator[StandIn]:
    """Serve the three on this machine and yield them. ``key``: the only one that is accepted; None accepts any."""
    stand_in = StandIn(key)
    routes = (
        ("url", web.post(r"/v1/{model:flux-2-[a-z0-9-]+}", stand_in.submit)),
        ("region", web.get("/v1/get_result", stand_in.poll)),
        ("delivery", web.get(r"/results/{name}/{file}", stand_in.deliver)),
    )
    runners: list[web.AppRunner] = []
    try:
        for place, route in routes:
            app = web.Application(client_max_size=64 * 1024 * 1024)
            app.add_routes([route])
            runners.append(web.AppRunner(app, access_log=None))
            await runners[-1].setup()
            await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
            host, port = runners[-1].addresses[0][:2]
            setattr(stand_in, place, f"http://{host}:{port}")
        yield stand_in
    finally:
        for runner in runners:
            await runner.cleanup()


@asynccontextmanager
async def serve() -> AsyncIterator[str]:
    """Serve for ``--emulator`` and yield the base URL."""
    async with serving() as stand_in:
        yield stand_in.url
