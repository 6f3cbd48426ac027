"""Names of files after a signal: each image has the number of its place, whatever came of the others."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from impasto import Client, Result
from impasto_plugins.emulator import Emulator
from tests.distributions import install
from tests.images import png

from .conftest import Run

PLUGIN = """
import asyncio, json, signal
import attrs
from impasto import ChargeUnknown, Operation, Provider, WireRequest
from impasto.dialects import image_in_body, images_from_urls
from impasto.fields import integer, text
from impasto_plugins.images.completeness import is_complete


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True, role="prompt")
    samples: int | None = integer(1, 4)


class Dialect:
    images = 0

    def transform_request(self, operation, request, account):
        return WireRequest(target=request.target, fields={"samples": request.count}, encoding="json")

    def classify_error(self, operation, response):
        return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}")

    def normalize_response(self, operation, request, response):
        if response.media_type.startswith("image/"):
            self.images += 1
            if self.images == 2:  # when this image is in its place
                asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
            return image_in_body(response, is_complete)
        return images_from_urls(json.loads(response.body)["images"], response, anonymous=True)


three = Operation(
    id="acme/three", title="Three", params=Params, target="/make", dialect=Dialect(), native_n=("samples", 4),
    provider=Provider(
        name="acme", base_url="https://api.acme.example", base_url_variable="ACME_API_BASE",
        key_variable="ACME_API_KEY",
    ),
)
"""


@pytest.fixture
def vendor(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> Iterator[None]:
    """A vendor whose second image does not come."""
    site = tmp_path_factory.mktemp("site")
    install(site, "acme-three", {"impasto.operations": {"acme/three": "acme_three:three"}}, {"acme_three": PLUGIN})
    monkeypatch.syspath_prepend(str(site))
    leave = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            urls = ", ".join(f'"http://127.0.0.1:{server.server_port}/{i}.png"' for i in range(3))
            self.answer(f'{{"images": [{urls}]}}'.encode(), "application/json")

        def do_GET(self) -> None:
            if self.path == "/1.png":
                leave.wait()
            else:
                self.answer(png(8, 8 + int(self.path[1])), "image/png")

        def answer(self, data: bytes, media_type: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    environment |= {"ACME_API_KEY": "any-key-of-tests", "ACME_API_BASE": f"http://127.0.0.1:{server.server_port}"}
    yield
    leave.set()
    server.shutdown()
    thread.join()
    server.server_close()


def interrupted(run: Run, *words: str) -> None:
    hangup = signal.getsignal(signal.SIGHUP)
    try:
        assert run("generate", *words).exit_code == 130
    finally:
        signal.signal(signal.SIGHUP, hangup)  # the end of a command ignores it


def test_an_image_that_was_not_fetched_leaves_its_number(vendor: None, run: Run, tmp_path: Path) -> None:
    interrupted(run, "acme/three", "a cat", "-n", "3", "-o", "x.png")
    found = {path.name: path.read_bytes() for path in tmp_path.glob("x*.png")}
    assert found == {"x-1.png": png(8, 8), "x-3.png": png(8, 10)}


def test_a_request_that_was_not_answered_leaves_its_number(
    run: Run, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    impasto_emulator.fault("delay", seconds=60, times=1)
    run_once, seeds = Client._run_once, list[int]()

    async def interrupt_after_two(*arguments: Any) -> Result:
        result = await run_once(*arguments)
        seeds.append(arguments[2].params.seed)
        if len(seeds) == 2:
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        return result

    monkeypatch.setattr(Client, "_run_once", interrupt_after_two)
    interrupted(run, "stability/sd3", "x", "-n", "3", "-p", "seed=1", "-o", "x.png")
    assert {path.name for path in tmp_path.glob("x*.png")} == {f"x-{seed}.png" for seed in seeds}
