"""An emulator in the test's own loop, and a plain HTTP client, so that the wire is judged without impasto."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
import pytest
from PIL import Image

from impasto_plugins.emulator import SHORT, Emulator, EmulatorSettings

GENERATE = "/v2beta/stable-image/generate/core"
SD3 = "/v2beta/stable-image/generate/sd3"
INPAINT = "/v2beta/stable-image/edit/inpaint"
CREATIVE = "/v2beta/stable-image/upscale/creative"
RELIGHT = "/v2beta/stable-image/edit/replace-background-and-relight"
KEY = "sk-emulated-0123456789"

Answer = tuple[int, Mapping[str, str], bytes]


def form(fields: Iterable[tuple[str, object]]) -> aiohttp.FormData:
    """A multipart form: bytes are files, all else is text. Names may be repeated."""
    result = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields:
        if isinstance(value, bytes):
            result.add_field(name, io.BytesIO(value), filename=f"{name}.png", content_type="image/png")
        else:
            result.add_field(name, str(value))
    return result


@attrs.frozen(eq=False)
class Wire:
    """A plain client: multipart by hand, nothing checked."""

    emulator: Emulator
    session: aiohttp.ClientSession

    async def post(
        self, path: str, fields: Mapping[str, object], *, key: str | None = KEY, accept: str | None = None
    ) -> Answer:
        """A form of text fields and, where the value is bytes, files."""
        return await self.send("POST", path, data=form(fields.items()), key=key, accept=accept)

    async def get(self, path: str, *, key: str | None = KEY, accept: str | None = None) -> Answer:
        return await self.send("GET", path, key=key, accept=accept)

    async def send(
        self,
        method: str,
        path: str,
        *,
        key: str | None = KEY,
        accept: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        """Anything that aiohttp can send."""
        own = {"authorization": f"Bearer {key}"} if key is not None else {}
        if accept is not None:
            own["accept"] = accept
        url = self.emulator.url + path
        async with self.session.request(
            method, url, headers={**own, **(headers or {})}, allow_redirects=False, **options
        ) as answer:
            return answer.status, answer.headers, await answer.read()


class Clock:
    """A clock for a module of the emulator, in place of ``time``, so many seconds ``ahead`` of the other."""

    ahead = 0.0

    def monotonic(self) -> float:
        """Return the seconds of this clock."""
        return time.monotonic() + self.ahead


@asynccontextmanager
async def started(**settings: object) -> AsyncIterator[Wire]:
    """An emulator with short times and other settings, and a client for it."""
    async with (
        Emulator(EmulatorSettings.from_mapping({**attrs.asdict(SHORT), **settings})) as emulator,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        yield Wire(emulator, session)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with started() as it:
        yield it


def open_image(data: bytes) -> Image.Image:
    """A picture, decoded."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def plain(size: tuple[int, int] = (96, 96), colour: object = (40, 90, 160), mode: str = "RGB") -> bytes:
    """A PNG of one colour."""
    return encoded(Image.new(mode, size, colour))  # type: ignore[arg-type]  # a colour of the mode
