"""wrk, which asks: ``asked`` is one run of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import attrs

KEY = "sk-benchmark-" + "k" * 24
CONNECTIONS = 32
SECONDS = 3

SDK = {
    "accept": "application/json",
    "user-agent": "AsyncOpenAI/Python 2.8.1",
    "x-stainless-lang": "python",
    "x-stainless-package-version": "2.8.1",
    "x-stainless-os": "Linux",
    "x-stainless-arch": "x64",
    "x-stainless-runtime": "CPython",
    "x-stainless-runtime-version": "3.11.2",
    "x-stainless-async": "async:asyncio",
    "x-stainless-retry-count": "0",
    "x-stainless-read-timeout": "600",
}
"""The headers that OpenAI's SDK sends with each request."""

SDK_HEADERS = "".join(f"{name}: {value}\r\n" for name, value in SDK.items())

Measured = Callable[[], Awaitable[float]]

_SCRIPT = """\
wrk.method, wrk.headers["Authorization"] = "POST", "Bearer {key}"
wrk.headers["Content-Type"] = "{content_type}"
{headers}
local source = io.open("{body}", "rb")
wrk.body = source:read("*a")
source:close()
function done(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format('{{"requests": %d, "seconds": %f, "p99": %f, "failed": %d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(99) / 1e6, bad))
end
"""


@attrs.frozen(kw_only=True)
class Ask:
    """A request that is asked again and again. ``model`` is the size of its image, as ``gateway`` names them."""

    model: str = ""
    path: str
    content_type: str
    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")


@attrs.frozen(kw_only=True)
class Answered:
    """What a run of wrk saw. Times are in seconds."""

    requests: int
    seconds: float
    p99: float
    failed: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def generation(model: str, **more: object) -> Ask:
    """A picture of a text."""
    body = json.dumps({"model": model, "prompt": "a lighthouse on a cliff", **more}).encode()
    return Ask(model=model, path="/v1/images/generations", content_type="application/json", body=body)


def direct() -> Ask:
    """What a gateway asks of the provider, asked by wrk itself."""
    body = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na lighthouse on a cliff\r\n--x--\r\n'
    return Ask(path="/v2beta/stable-image/generate/core", content_type="multipart/form-data; boundary=x", body=body)


def edit(model: str, picture: bytes) -> Ask:
    """A picture of a picture, as curl sends it: what is plain after the file."""
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    name = f'\r\n--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n--x--\r\n'
    body = head + picture + name.encode()
    return Ask(path="/v1/images/edits", content_type="multipart/form-data; boundary=x", body=body)


def asked(
    url: str, ask: Ask, *, connections: int, seconds: int, key: str = KEY, headers: Mapping[str, str] | None = None
) -> Answered:
    """Ask over so many connections at once for so long. Raises RuntimeError if a request failed."""
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "ask.lua")
        body.write_bytes(ask.body)
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in (headers or {}).items())
        script.write_text(_SCRIPT.format(key=key, content_type=ask.content_type, body=body, headers=lines))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script)]
        done = subprocess.run([*command, url + ask.path], check=True, stdout=subprocess.PIPE, text=True)
    answered = Answered(**json.loads(done.stdout.splitlines()[-1]))
    if answered.failed or not answered.requests:
        raise RuntimeError(f"{url}{ask.path}: {answered}")
    return answered


def rate(
    url: str,
    ask: Ask,
    *,
    connections: int = CONNECTIONS,
    key: str = KEY,
    seconds: int = SECONDS,
    headers: Mapping[str, str] | None = None,
) -> Measured:
    """Measure answers a second."""

    async def measured() -> float:
        options = {"connections": connections, "seconds": seconds}
        return (await asyncio.to_thread(asked, url, ask, key=key, headers=headers, **options)).rate

    return measured
