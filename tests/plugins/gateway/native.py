"""A vendor that makes up to four images in one request, and the plugin for it."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from tests.distributions import OPERATIONS, install
from tests.images import padded, png

KEY = "acme-key-of-tests"
USD = 0.04
"""The price of an image."""

TRUE_USD = 0.015
"""The cost of an image that the vendor reports itself, if it does."""

PLUGIN = """
import base64, json, re
import attrs
from impasto import (
    BadRequest, Artifact, ChargeUnknown, ContentFiltered, Cost, FailedArtifact, FlatPrice, NotFound, Operation,
    Pending, Provider, RateLimited, Result, Usage, WireRequest,
)
from impasto.dialects import images_from_urls, images_of_job
from impasto.fields import integer, text

IMAGE = re.compile(r"http://[^ ]+/images/[0-9]+/[0-9]+")


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True, role="prompt")
    seed: int | None = integer(0, 1000)
    samples: int | None = integer(1, 10)


@attrs.frozen(kw_only=True)
class UnseededParams:
    prompt: str = text(1, 100, required=True, role="prompt")
    samples: int | None = integer(1, 10)


class Dialect:
    def transform_request(self, operation, request, account):
        if request.job is not None and "://" in request.job:
            return images_of_job(request.job, account, IMAGE, anonymous=True)
        if request.job is not None:
            return WireRequest(target=f"/jobs/{request.job}", method="GET")
        fields = attrs.asdict(request.params, filter=lambda _, value: value is not None)
        return WireRequest(target=request.target, fields=fields, encoding="json")

    def classify_error(self, operation, response):
        if response.status == 400:
            return BadRequest("no", status=400)
        if response.status == 404:
            return NotFound("no such job", status=404)
        if response.status == 429:
            return RateLimited("slow down", status=429)
        return None if response.status in (200, 202) else ChargeUnknown(
            f"HTTP {response.status}", status=response.status
        )

    def is_artifact_body(self, operation, response):
        return response.status == 200

    def normalize_response(self, operation, request, response):
        if response.media_type == "image/png":
            return Result(artifacts=(Artifact(data=response.body, file=response.file, media_type="image/png"),))
        body = json.loads(response.body if response.file is None else response.file.read())
        if "urls" in body:
            return images_from_urls(body["urls"], response, anonymous=True, seeds=body["seeds"])
        if "id" in body:
            poll = WireRequest(target=f"/jobs/{body['id']}", method="GET")
            return Pending(id=body["id"], poll=poll, first=0.01, interval=0.01)
        return Result(
            artifacts=tuple(
                Artifact(data=base64.b64decode(each), media_type="image/png") for each in body["images"] if each
            ),
            errors=tuple(
                FailedArtifact(index=i, error=ContentFiltered("filtered", status=200, billed="no"))
                for i, each in enumerate(body["images"]) if each is None
            ),
            usage=Usage(input_tokens=10, output_tokens=25 * len(body["images"])),
            cost=Cost(usd=body["usd"], as_of="2026-11-01") if "usd" in body else None,
        )


provider = Provider(
    name="acme", base_url="https://api.acme.example", base_url_variable="ACME_API_BASE",
    key_variable="ACME_API_KEY", poll_interval=0.01,
)


def model(name, maximum=4, params=Params):
    return Operation(
        id=f"acme/{name}", title=name, params=params, target=f"/{name}", dialect=Dialect(), provider=provider,
        native_n=("samples", maximum) if maximum > 1 else None,
        price=FlatPrice(cost=Cost(usd=0.04, as_of="2026-11-01")),
    )


fine, three, one = model("fine"), model("three", 3), model("one", 1)
unseeded, unseeded_one = model("unseeded", 4, UnseededParams), model("unseeded_one", 1, UnseededParams)
"""
MODELS = ("fine", "three", "one", "unseeded", "unseeded_one")


def image(seed: int) -> bytes:
    """Return the vendor's image of a seed."""
    return png(8, 8 + seed)


class _QuietServer(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a killed gateway leaves its connections broken."""


class Vendor:
    """The server. A word in the prompt chooses an outcome; ``usd`` is what the images made here cost in all.

    ``job`` answers with a job, ``fewer`` and ``more`` with one image less or more than asked for, ``filtered``
    without the first, ``breaks`` with a broken connection, ``refused`` with 400, ``held`` after ``release``,
    ``signed`` with addresses of its images, ``true`` with the cost, ``large`` with images of 3 MB, ``none of`` with
    filtered images alone (``last``: if fewer than four are asked for), ``garbled`` with JSON that nobody can read.
    """

    def __init__(self) -> None:
        self.url = ""
        self.posts: list[dict[str, Any]] = []
        self.polls: list[str] = []
        self.image = b""
        """The image at every address, in place of that of its seed."""
        self.charged_images = 0
        """Images that were made, and charged."""
        self.busy = 0
        """Requests that are refused with 429 before one is accepted."""
        self.has_results = Event()
        """Set if jobs have ended."""
        self.has_results.set()
        self.held_samples = 0
        """Requests for so many images are held too."""
        self.broken_samples = 0
        """Requests for so many images break the connection."""
        self.release = Event()
        self.refused: set[int] = set()
        """Seeds of images that their host refuses."""
        self._lock = Lock()

    def wait_for(self, posts: int) -> None:
        """Wait until so many requests have arrived."""
        waiting = Event()
        while len(self.posts) < posts:
            waiting.wait(0.005)

    def answer(self, path: str, fields: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Return status and body; None breaks the connection."""
        prompt, request = fields["prompt"], fields.get("samples", 1)
        with self._lock:
            self.posts.append({"path": path, **fields})
            number = len(self.posts)
            if "refused" in prompt:
                return 400, {}
            if self.busy:
                self.busy -= 1
                return 429, {}
            count = request - ("fewer" in prompt) + ("more" in prompt) - ("filtered" in prompt)
            if "none of" in prompt and (request < 4 or "last" not in prompt):
                return 200, {"images": [None] * request}
            self.charged_images += count
        if "held" in prompt or request == self.held_samples:
            self.release.wait(60)
        if "breaks" in prompt or request == self.broken_samples:
            return None
        first = fields.get("seed", 0)
        make = (lambda seed: padded(3 << 20, 64, 64 + seed)) if "large" in prompt else image
        images: list[str | None] = [
            base64.b64encode(make(first + i)).decode() for i in range(count + ("filtered" in prompt))
        ]
        if "filtered" in prompt:
            images[0] = None
        body: dict[str, Any] = {"pictures" if "garbled" in prompt else "images": images}
        if "true" in prompt:
            body["usd"] = TRUE_USD * count
        if "signed" in prompt:
            seeds = list(range(first, first + count))
            body = {"urls": [f"{self.url}/images/{number}/{seed}" for seed in seeds], "seeds": seeds}
        if "job" in prompt:
            self.posts[number - 1]["result"] = body
            return 202, {"id": f"job-{number}"}
        return 200, body

    def poll(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return the state of a job."""
        self.polls.append(path)
        id = path.rpartition("/")[2]
        if not self.has_results.is_set():
            return 202, {"id": id}
        number = int(id.rpartition("-")[2]) - 1
        return (200, self.posts[number]["result"]) if number < len(self.posts) else (404, {})


@contextmanager
def serving() -> Iterator[Vendor]:
    """Serve the vendor in a thread, and yield it."""
    vendor = Vendor()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            fields = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._answer(vendor.answer(self.path, fields))

        def do_GET(self) -> None:
            if self.path.startswith("/images/"):
                vendor.polls.append(self.path)
                seed = int(self.path.rpartition("/")[2])
                self._send(
                    *(
                        (403, b"", "text/plain")
                        if seed in vendor.refused
                        else (200, vendor.image or image(seed), "image/png")
                    )
                )
            else:
                self._answer(vendor.poll(self.path))

        def _answer(self, answer: tuple[int, dict[str, Any]] | None) -> None:
            if answer is None:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._send(answer[0], json.dumps(answer[1]).encode(), "application/json")

        def _send(self, status: int, data: bytes, media_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _QuietServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    vendor.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield vendor
    finally:
        vendor.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def install_plugin(site: Path) -> None:
    """Install the plugin into a folder of modules."""
    points = {OPERATIONS: {f"acme/{name}": f"native_n_plugin:{name}" for name in MODELS}}
    install(site, "acme-native", points, {"native_n_plugin": PLUGIN})
