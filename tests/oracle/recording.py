"""A stand-in for both providers: record each request as a public HTTP and multipart reader sees it, and answer.

It knows the contract's paths only; nothing of impasto's own reading or writing of HTTP is used.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

import attrs
from aiohttp import BodyPartReader, MultipartReader, web

from tests.images import png
from tests.media import glb, wav
from tests.oracle.contract import STABILITY

JOB = "0a1b2c3d" * 8
JOBS = {contract.path: contract for contract in STABILITY if contract.results is not None}
MAKES = {contract.path: contract.makes for contract in STABILITY}
ACCOUNT = {
    "/v1/user/balance": {"credits": 1234.5},
    "/v1/user/account": {
        "id": "user-1",
        "email": "someone@example.com",
        "organizations": [{"id": "org-1", "name": "Org", "role": "OWNER", "is_default": True}],
    },
    "/v1/engines/list": [{"id": "e", "name": "E", "description": "an engine", "type": "PICTURE"}],
}
KIND = {"image": ("image/png", png(8, 8)), "audio": ("audio/wav", wav(10)), "3d": ("model/gltf-binary", glb())}


@attrs.frozen
class Part:
    """One part of a form; a plain field has no ``filename``."""

    name: str
    filename: str | None
    media_type: str
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen(kw_only=True)
class RecordedRequest:
    """A request. Header names are in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...] = ()
    body: bytes = attrs.field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """Return the one value of a header. Fails if it came twice."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


@attrs.define
class Provider:
    """The stand-in. ``pending``: how many polls of a job are answered with "in progress" first."""

    url: str = ""
    requests: list[RecordedRequest] = attrs.field(factory=list[RecordedRequest])
    pending: int = 0

    def clear(self) -> None:
        """Forget what was recorded."""
        self.requests.clear()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Record a request and answer it."""
        parts: list[Part] = []
        body = b""
        if request.content_type == "multipart/form-data":
            reader = MultipartReader(request.headers, request.content)
            while (part := await reader.next()) is not None:
                assert isinstance(part, BodyPartReader)
                media_type = part.headers.get("content-type", "text/plain").partition(";")[0]
                parts.append(Part(part.name or "", part.filename, media_type, bytes(await part.read())))
        else:
            body = await request.content.read()
        record = RecordedRequest(
            method=request.method,
            path=request.raw_path,
            headers=tuple((name.decode().lower(), value.decode()) for name, value in request.raw_headers),
            parts=tuple(parts),
            body=body,
        )
        self.requests.append(record)
        return self._answer(record)

    def _answer(self, record: RecordedRequest) -> web.Response:
        path = record.path
        if path in ACCOUNT:
            return web.json_response(ACCOUNT[path])
        if path.startswith("/model/"):
            return web.json_response(_images(unquote(path)))
        if path in JOBS:
            return web.json_response({"id": JOB}, status=JOBS[path].submit_status)
        if path.endswith(f"/{JOB}"):
            if self.pending > 0:
                self.pending -= 1
                return web.json_response({"id": JOB, "status": "in-progress"}, status=202)
            return _file_response("audio" if path.startswith("/v2beta/audio/") else "image")
        return _file_response(MAKES[path])


def _file_response(makes: str) -> web.Response:
    media_type, data = KIND[makes]
    headers = {"x-request-id": "request-1"}
    if makes != "3d":
        headers |= {"finish-reason": "SUCCESS", "seed": "7"}
    return web.Response(body=data, content_type=media_type, headers=headers)


def _images(path: str) -> object:
    return {"seeds": [7], "finish_reasons": [None], "images": [base64.b64encode(KIND["image"][1]).decode()]}


@asynccontextmanager
async def recording() -> AsyncIterator[Provider]:
    """Run a stand-in on loopback."""
    provider = Provider()
    runner = web.ServerRunner(web.Server(provider.handle), shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    provider.url = f"http://{host}:{port}"
    try:
        yield provider
    finally:
        await runner.cleanup()
