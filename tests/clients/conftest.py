"""Gateways in front of the emulator, one for each configuration that a client's users need."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway
from tests.conftest import KEY

from .catalog import Request, Settings

MASTER = "sk-1234"
MODELS = {
    "sd3": "stability/sd3.5-large",
    "inpaint": "stability/stable-image-inpaint-v1:0",
    "style-transfer": "stability/style-transfer",
}
OPENAI_MODELS = ("dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5")
"""Names that clients do not let their users choose."""


@attrs.frozen
class Answer:
    """A whole answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be JSON and say so."""
        assert self.headers.get_content_type() == "application/json", self.headers
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, str | None]:
        """The error, which must have OpenAI's shape: clients parse it strictly."""
        assert set(self.json) == {"error"}, self.body
        error: dict[str, str | None] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert error["type"]
        return error


Gateways = Callable[[Settings], str]
Send = Callable[..., Answer]


def _config(base: str, settings: Settings, data_dir: str) -> str:
    lines = ["model_list:"]
    fields = {line.partition(":")[0] for line in settings.params}
    for name, model in {**MODELS, **dict.fromkeys(OPENAI_MODELS, settings.serves)}.items():
        params = [f"model: {model}", f"api_key: {KEY}", f"api_base: {base}"]
        takes_strength = model == MODELS["sd3"]
        params += [line for line in settings.params if takes_strength or not line.startswith("strength:")]
        lines += [f"  - model_name: {name}", "    litellm_params:", *(f"      {line}" for line in params)]
    lines += ["general_settings:", f"  master_key: {MASTER}", "  poll_interval: 0.05", f"  data_dir: {data_dir}/data"]
    lines += [f"  {line}" for line in settings.general]
    lines += ["files:", f"  folder: {data_dir}/files", ""]
    assert fields <= {"strength", "response_format", "drop_params"}
    return "\n".join(lines)


@pytest.fixture(scope="session")
def gateways(_impasto_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """Return the address of a gateway with these settings; each is started once, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stack = AsyncExitStack()
    addresses: dict[Settings, str] = {}

    def wait(future: Future[Any]) -> Any:
        return future.result(timeout=60)

    async def start(text: str) -> str:
        gateway = await stack.enter_async_context(Gateway(parse(text.encode())))
        return gateway.url

    def get(settings: Settings) -> str:
        if settings not in addresses:
            text = _config(_impasto_emulator.url, settings, str(tmp_path_factory.mktemp("gateway")))
            addresses[settings] = wait(asyncio.run_coroutine_threadsafe(start(text), loop))
        return addresses[settings]

    yield get
    wait(asyncio.run_coroutine_threadsafe(stack.aclose(), loop))
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=60)
    loop.close()


@pytest.fixture
def send(gateways: Gateways, impasto_emulator: Emulator) -> Send:
    """Send a client's request, byte for byte, to a gateway with these settings."""

    def send(request: Request, settings: Settings, key: str = MASTER) -> Answer:
        address = urlsplit(gateways(settings))
        assert address.hostname is not None
        with socket.create_connection((address.hostname, address.port or 80), timeout=60) as connection:
            connection.sendall(request.to_wire(address.netloc, key))
            response = http.client.HTTPResponse(connection, method=request.method)
            response.begin()
            return Answer(response.status, response.headers, response.read())

    return send
