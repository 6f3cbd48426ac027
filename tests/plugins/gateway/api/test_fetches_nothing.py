"""Addresses in a request, wherever they stand and however they are written: nothing is ever fetched from there.

A canary listens at them; no connection reaches it, and no provider is asked.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

import attrs
import pytest

from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.gateway.conftest import Running
from tests.plugins.gateway.http.test_multipart import field, form

DATA = "data:image/png;base64," + b64encode(png(96, 96)).decode()
GENERATIONS, EDITS, VARIATIONS = ("/v1/images/" + path for path in ("generations", "edits", "variations"))


@attrs.define
class Canary:
    """A server that nobody has a reason to call."""

    port: int = 0
    connections: int = 0


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    found = Canary()

    async def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        writer.close()

    async with await asyncio.start_server(called, "127.0.0.1") as server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


URLS: dict[str, str] = {
    "http": "http://127.0.0.1:{port}/a.png",
    "https": "https://127.0.0.1:{port}/a.png",
    "ftp": "ftp://127.0.0.1:{port}/a.png",
    "file": "file:///etc/passwd",
    "file of a host": "file://127.0.0.1:{port}/a.png",
    "another scheme": "gopher://127.0.0.1:{port}/_x",
    "s3": "s3://bucket/a.png",
    "capital letters": "HTTP://127.0.0.1:{port}/a.png",
    "no scheme": "//127.0.0.1:{port}/a.png",
    "no scheme at all": "127.0.0.1:{port}/a.png",
    "a name": "http://localhost:{port}/a.png",
    "a name that leads here": "http://127.0.0.1.nip.io:{port}/a.png",
    "the cloud's own": "http://169.254.169.254/latest/meta-data/",
    "mapped": "http://[::ffff:127.0.0.1]:{port}/a.png",
    "full width": "http://\uff11\uff12\uff17.0.0.1:{port}/a.png",
    "hexadecimal": "http://0x7f.1:{port}/a.png",
    "one number": "http://2130706433:{port}/a.png",
    "octal": "http://0177.0.0.1:{port}/a.png",
    "a backslash": "http://ok\\@127.0.0.1:{port}/a.png",
    "somebody's name": "http://ok@127.0.0.1:{port}/a.png",
    "spaces": " http://127.0.0.1:{port}/a.png ",
    "a line": "http://127.0.0.1:{port}/a.png\r\nX: y",
    "escaped": "http:%2f%2f127.0.0.1:{port}%2fa.png",
    "a path": "/etc/passwd",
    "a path upwards": "../../../../etc/passwd",
    "a device": "/dev/stdin",
    "data that leads there": "data:,http://127.0.0.1:{port}/a.png",
    "data of another kind": "data:text/html;base64,PGltZyBzcmM9Imh0dHA6Ly8xMjcuMC4wLjEiPg==",
    "a drawing that leads there": "data:image/svg+xml,%3Csvg%3E%3Cimage%20href='http://127.0.0.1:{port}'/%3E%3C/svg%3E",
    "data in capitals": "DATA:TEXT/PLAIN,x",
    "data within data": "data:image/png;base64,ZGF0YTppbWFnZS9wbmc7YmFzZTY0LEFBQUE=",
}

ServedRequest = tuple[str, bytes, str]
"""Where a request goes, its body, and the content type."""


def in_json(path: str, **body: object) -> ServedRequest:
    return path, json.dumps({"prompt": "p", **body}).encode(), "application/json"


def in_form(name: str, value: str, model: str = "upscale") -> ServedRequest:
    body = form(field("model", model), field("prompt", "p"), field(name, value))
    return EDITS, body, "multipart/form-data; boundary=bound"


PLACES: dict[str, Callable[[str], ServedRequest]] = {
    "image": lambda url: in_json(EDITS, model="upscale", image=url),
    "image, a list": lambda url: in_json(EDITS, model="upscale", image=[url]),
    "image, an object": lambda url: in_json(EDITS, model="upscale", image={"image_url": url}),
    "image, as in a chat": lambda url: in_json(EDITS, model="upscale", image={"image_url": {"url": url}}),
    "images": lambda url: in_json(EDITS, model="upscale", images=[{"image_url": url}]),
    "images, text": lambda url: in_json(EDITS, model="upscale", images=[url]),
    "a second image": lambda url: in_json(
        EDITS, model="style-transfer", images=[{"image_url": DATA}, {"image_url": url}]
    ),
    "mask": lambda url: in_json(EDITS, model="inpaint", image=DATA, mask=url),
    "mask, an object": lambda url: in_json(EDITS, model="inpaint", image=DATA, mask={"image_url": url}),
    "a model's own field": lambda url: in_json(EDITS, model="style-transfer", image=DATA, style_image=url),
    "extra_body": lambda url: in_json(EDITS, model="upscale", extra_body={"image": url}),
    "extra_body, a list": lambda url: in_json(EDITS, model="upscale", extra_body={"image": [{"image_url": url}]}),
    "a generation": lambda url: in_json(GENERATIONS, model="sd3", image=url, strength=0.5),
    "a variation": lambda url: in_json(VARIATIONS, model="sd3", image=url),
    "a form": lambda url: in_form("image", url),
    "a form's list": lambda url: in_form("image[]", url),
    "a form's object": lambda url: in_form("images[0][image_url]", url),
    "a form's extra_body": lambda url: in_form("extra_body", json.dumps({"image": url})),
}


@pytest.mark.parametrize("place", PLACES)
async def test_an_address_of_a_picture_is_refused(
    standing: Running, impasto_emulator: Emulator, canary: Canary, place: str
) -> None:
    for name, form_of in URLS.items():
        path, body, kind = PLACES[place](form_of.format(port=canary.port))
        answer = await standing.ask("POST", path, data=body, headers={"content-type": kind})
        assert (answer.status, answer.error["code"]) == (400, "invalid_image"), (name, answer.body)
        assert "passwd" not in (answer.error["message"] or ""), name
    assert (canary.connections, len(impasto_emulator.requests)) == (0, 0)


ELSEWHERE = (
    *("api_base", "base_url", "endpoint_url", "aws_bedrock_runtime_endpoint", "bedrock_endpoint", "proxy", "webhook"),
    *("extra_headers", "extra_query", "headers", "callback_url", "mask_url", "image_url", "file_id"),
    *("allowed_routes", "role", "max_budget", "user_id", "api_key", "timeout"),
)


@pytest.mark.parametrize("name", ELSEWHERE)
async def test_nothing_in_a_request_says_where_a_call_goes(
    standing: Running, impasto_emulator: Emulator, canary: Canary, name: str
) -> None:
    """A key of the gateway's own would go there with it."""
    url = f"http://127.0.0.1:{canary.port}"
    for value in (url, {"Host": url, "Authorization": url}, [url]):
        for body in ({name: value}, {"extra_body": {name: value}}):
            answer = await standing.generate(**body)
            assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unknown_parameter", name)
    path, data, kind = in_form(name, url)
    answer = await standing.ask("POST", path, data=data, headers={"content-type": kind})
    assert answer.status == 400
    answer = await standing.ask("POST", f"{GENERATIONS}?{name}={quote(url)}", json={"model": "sd3", "prompt": "p"})
    assert answer.status == 200  # what stands in the address is nothing
    assert canary.connections == 0
    assert len(impasto_emulator.requests) == 1
