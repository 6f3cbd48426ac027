"""A gateway in the test's loop, in front of the emulator, and OpenAI's own SDK as its client."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import attrs
import openai
import pytest

from impasto import Account, RateLimit
from impasto.client_state import ClientState
from impasto_plugins.emulator import SHORT, Emulator, serve as emulate
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway
from tests.conftest import KEY
from tests.plugins.gateway import native
from tests.reliability.servers import Server, serving

MASTER = "sk-1234"
CERTIFICATES = ssl.create_default_context()
"""The system's certificates. A client of the SDK reads them again, for 25 ms of CPU."""

MODELS = {
    "sd3": "stability/sd3.5-large",
    "ultra": "stability/stable-image-ultra",
    "core": "stability/stable-image-core",
    "inpaint": "stability/stable-image-inpaint-v1:0",
    "erase": "stability/erase",
    "upscale": "stability/stable-conservative-upscale-v1:0",
    "fast": "stability/upscale-fast",
    "creative": "stability/upscale-creative",
    "outpaint": "stability/outpaint",
    "style-transfer": "stability/style-transfer",
    "remove-background": "stability/remove-background",
}
FEW = ("sd3", "core", "upscale", "creative", "erase")
"""Those that a gateway of a test has by default: each makes its start slower."""


def entry(name: str, model: str, base: str, key: str = KEY) -> str:
    """One entry of model_list."""
    return (
        f"  - model_name: {name}\n    litellm_params:\n      model: {model}\n"
        f"      api_key: {key}\n      api_base: {base}\n"
    )


def key_entry(name: str, key: str, **limits: object) -> str:
    """One entry of keys."""
    lines = {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **limits}
    return "".join(f"{'  - ' if i == 0 else '    '}{each}: {value}\n" for i, (each, value) in enumerate(lines.items()))


def config(base: str, *, models: Iterable[str] = FEW, entries: str = "", general: str = "", more: str = "") -> str:
    """A configuration of these models of ``MODELS``, or of these entries."""
    entries = entries or "".join(entry(name, MODELS[name], base) for name in models)
    return f"model_list:\n{entries}general_settings:\n  master_key: {MASTER}\n  poll_interval: 0.05\n{general}{more}"


def sdk_client(url: str, key: str = MASTER, **options: Any) -> openai.AsyncOpenAI:
    """Return a client of the SDK with sockets of its own, which does not retry by default."""
    http = openai.DefaultAsyncHttpxClient(verify=CERTIFICATES)
    return openai.AsyncOpenAI(api_key=key, base_url=f"{url}/v1", http_client=http, **{"max_retries": 0, **options})


@attrs.frozen
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, str | None]:
        """What the answer says went wrong; it has OpenAI's shape and an id."""
        assert set(self.json) == {"error"}, self.body
        error: dict[str, str | None] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert self.headers["x-request-id"].startswith("req_")
        return error


class Running:
    """A gateway and its clients: OpenAI's, and a plain one that has the key."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.url = gateway.url
        self.sdk = sdk_client(self.url, _strict_response_validation=True)  # answers are held to the types of the SDK
        self._sockets: list[socket.socket] = []
        connector = aiohttp.TCPConnector(socket_factory=self._socket)
        self.session = aiohttp.ClientSession(connector=connector, headers={"authorization": f"Bearer {MASTER}"})

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        self._sockets.append(socket.socket(*address[:3]))
        return self._sockets[-1]

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Any request; a path without a host is the gateway's."""
        url = path if "://" in path else self.url + path
        async with self.session.request(method, url, **options) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def generate(self, **body: object) -> Answer:
        """``POST /v1/images/generations``, of the model ``sd3`` if no other is named."""
        return await self.ask("POST", "/v1/images/generations", json={"model": "sd3", "prompt": "p", **body})

    async def idle(self) -> None:
        """Wait until nothing runs, and every answer is known to be read or is kept."""
        await asyncio.wait_for(self.gateway._app.wait_idle(), 60)
        await asyncio.wait_for(self.gateway._idempotency.flush_deliveries(), 60)

    async def delivered(self) -> None:
        """Wait until every answer is known to be read, or not to be."""
        async with asyncio.timeout(60):
            while self.gateway._idempotency._deliveries:
                await asyncio.sleep(0.01)

    async def aclose(self) -> None:
        """Ends it; an upload that was refused half-way would else still be sent when the loop is gone."""
        await self.sdk.close()
        await self.session.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(60):
            while any(each.fileno() >= 0 for each in self._sockets):
                await asyncio.sleep(0.001)


@pytest.fixture
def second() -> Iterator[Emulator]:
    """Another provider of the same models."""
    with emulate(SHORT) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where gateways of this test keep what outlives them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "impasto"


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(impasto_emulator: Emulator, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts gateways: of a configuration's text, or of these models of ``MODELS``."""
    async with AsyncExitStack() as stack:

        async def start(text: str | None = None, *, models: Iterable[str] = FEW, **options: Any) -> Running:
            more = f"files:\n  folder: {tmp_path / 'files'}\n"
            text = text or config(impasto_emulator.url, models=models, more=more)
            parsed = await asyncio.to_thread(parse, text.encode())  # it may read what is installed
            gateway = await stack.enter_async_context(Gateway(parsed, **options))
            running = Running(gateway)
            stack.push_async_callback(running.aclose)
            return running

        yield start


@pytest.fixture
async def provider() -> AsyncIterator[Server]:
    """A provider that answers what the test scripts."""
    async with serving() as server:
        yield server


@pytest.fixture
async def gateway(start: Start) -> Running:
    """One of the models ``FEW``."""
    return await start()


@pytest.fixture(scope="session")
def _standing(_impasto_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("standing")
    text = config(
        _impasto_emulator.url,
        models=MODELS,
        general=f"  data_dir: {folder / 'data'}\n",
        more=f"files:\n  folder: {folder / 'files'}\n",
    )
    started: Future[tuple[Gateway, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        async with Gateway(parse(text.encode())) as gateway:
            stop = asyncio.Event()
            started.set_result((gateway, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    gateway, loop, stop = started.result(timeout=30)
    yield gateway
    loop.call_soon_threadsafe(stop.set)
    thread.join()


@pytest.fixture
async def standing(_standing: Gateway, impasto_emulator: Emulator) -> AsyncIterator[Running]:
    """One of every model, in a thread of its own and for all tests: for those that only look at what it answers."""
    running = Running(_standing)
    yield running
    await running.aclose()


Process = subprocess.Popen[str]


def read_log(process: Process, words: str) -> str:
    """Waits until the process says these words; the line that has them."""
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)


Serve = Callable[..., tuple[Process, str]]


@pytest.fixture
def serve(impasto_emulator: Emulator, tmp_path: Path) -> Iterator[Serve]:
    """Starts ``impasto serve`` with a configuration's text; gives the process and its address."""
    path = tmp_path / "config.yaml"
    started: list[Process] = []

    def serve(text: str, *words: str, **environment: str) -> tuple[Process, str]:
        path.write_text(text)
        environment |= {"STABILITY_API_KEY": KEY, "STABILITY_API_BASE": impasto_emulator.url}
        process = subprocess.Popen(
            [sys.executable, "-m", "impasto_plugins.cli", "serve", "--config", str(path), "--port", "0", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("RUNNING on http://"), process.communicate()
        return process, line.split()[-1]

    yield serve
    for process in started:
        process.kill()
        process.communicate(timeout=60)


@pytest.fixture
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys wait for half a second after the database has started again, not for ten."""
    new_account = ClientState.new_account

    def with_short_window(*args: Any, **options: Any) -> Account:
        return attrs.evolve(new_account(*args, **options), rate_limit=RateLimit(20, 0.5))

    monkeypatch.setattr(ClientState, "new_account", with_short_window)


@pytest.fixture
def native_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Variables of processes that find the plugin of ``native``; this process finds it too."""
    site = tmp_path_factory.mktemp("site")
    native.install_plugin(site)
    monkeypatch.syspath_prepend(str(site))
    return {"PYTHONPATH": str(site)}


@pytest.fixture
def vendor(native_environment: dict[str, str]) -> Iterator[native.Vendor]:
    """A vendor that makes several images in one request."""
    with native.serving() as vendor:
        yield vendor
