"""A hostile provider: its plugin does what its answers say, and every byte that leaves is searched for the key."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trustme

import impasto
from impasto import (
    Account,
    Artifact,
    ContentFiltered,
    Download,
    File,
    ImpastoError,
    JobFailed,
    Operation,
    Partial,
    Pending,
    Provider,
    Registry,
    Request,
    Result,
    ServerEvent,
    WireRequest,
    WireResponse,
)
from impasto.dialects import STATUSES, Refusals, image_in_body, images_from_base64, json_object, split_files
from impasto.fields import file, integer, text
from impasto.registry import OPERATIONS
from impasto_plugins.images.completeness import is_complete
from tests.images import png
from tests.reliability.servers import Answer, ServedRequest, Server, Wire, http, in_json, serving

KEY = "sk-canary-hostile-0123456789abcdef"
IMAGE = png(64, 64)
MODEL = "villain/paint"

refusals = Refusals(STATUSES, message="error.message", code="error.code")


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 1000, required=True, role="prompt")
    image: File | None = file(role="image")
    count: int | None = integer(1, 2)


class Dialect:
    """A dialect as authors write one. In JSON ``poll`` or ``url`` is a job, ``images`` or ``paths`` its result."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        if request.job is not None:
            return WireRequest(target=f"/status/{request.job}", method="GET")
        fields, files = split_files(operation, request.params)
        if request.stream:
            fields["stream"] = True
        return WireRequest(target=request.target, fields=fields, files=files, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        return None if response.status in (200, 202) else refusals(response)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        if response.media_type.startswith("image/"):
            return image_in_body(response, is_complete)
        return self._outcome(json_object(response), response)

    def _outcome(self, body: Mapping[str, Any], response: WireResponse) -> Result | Pending:
        if "failed" in body:
            raise JobFailed("the job failed", billed=body["failed"])
        if "filtered" in body:
            raise ContentFiltered("not this", billed=body["filtered"])
        if "images" in body:
            return images_from_base64(body["images"], response, is_complete)
        if "paths" in body:
            downloads = [WireRequest(target=path, method="GET") for path in body["paths"]]
            return Pending(id="j1", downloads=tuple(Download(request=r, index=i) for i, r in enumerate(downloads)))
        cancel = WireRequest(target=body["cancel"], method="PUT") if "cancel" in body else None
        poll = None
        if "url" in body:
            poll = WireRequest(url=body["url"], anonymous=body.get("anonymous", False), method="GET")
        elif "poll" in body:
            poll = WireRequest(target=body["poll"], method="GET")
        return Pending(id=body.get("id", "j1"), poll=poll, cancel=cancel, is_ready=body.get("is_ready", False))

    def normalize_event(self, operation: Operation, request: Request, event: ServerEvent) -> Partial | Result | None:
        if event.data == "[DONE]":
            return None
        body = json.loads(event.data)
        if "partial" in body:
            return Partial(Artifact(data=b"\x89PNG partial", media_type="image/png"), body["partial"])
        outcome = self._outcome(body, WireResponse(status=200, headers={}, body=event.data.encode()))
        assert isinstance(outcome, Result)
        return outcome


def operation(dialect: Any = None, provider: Provider | None = None, **settings: Any) -> Operation:
    vendor = provider or Provider(
        name="villain", base_url="https://api.villain.example", key_variable="VILLAIN_KEY",
        hosts=("cdn.villain.example", "*.villain.cloud"),
    )  # fmt: skip
    about = {"params": Params, "target": "/submit", "provider": vendor, "dialect": dialect or Dialect(), **settings}
    return Operation(id=MODEL, title="Paint", **about)


def images(*data: bytes) -> Mapping[str, Any]:
    return {"images": [b64encode(each).decode() for each in data or (IMAGE,)]}


def event(body: object, name: str = "message") -> bytes:
    return f"event: {name}\ndata: {json.dumps(body)}\n\n".encode()


def job(poll: str = "/status", **more: object) -> Answer:
    return in_json({"poll": poll, **more})


PICTURE = http(200, IMAGE, content_type="image/png")


def by_path(**answers: Answer) -> Answer:
    """Return an answer for each path, whose name is its first part."""

    async def answer(request: ServedRequest, wire: Wire) -> None:
        await answers[request.path.split("/")[1].partition("?")[0]](request, wire)

    return answer


@attrs.define
class Internet:
    """A proxy through which every host name leads to one server, over TLS; it records the names."""

    server: Server
    context: ssl.SSLContext
    trust: ssl.SSLContext
    url: str = ""
    hosts: list[str] = attrs.field(factory=list[str])

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.hosts.append(head.split(b" ")[1].decode().removesuffix(":443"))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await writer.start_tls(self.context)
            await self.server.handle(reader, writer)
        writer.close()


@asynccontextmanager
async def internet(server: Server) -> AsyncIterator[Internet]:
    authority = trustme.CA()
    context, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    names = ("api.villain.example", "cdn.villain.example", "eu.villain.cloud", "evil.example")
    authority.issue_cert(*names).configure_cert(context)
    authority.configure_trust(trust)
    web = Internet(server, context, trust)
    listener = await asyncio.start_server(web.accept, "127.0.0.1", 0)
    web.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield web
    finally:
        listener.close()


@asynccontextmanager
async def attacked(
    post: Answer, other: Answer | None = None, *, model: Operation | None = None, **settings: Any
) -> AsyncIterator[tuple[impasto.Client, Server]]:
    """A client of a server on loopback that answers each POST with ``post`` and all else with ``other``."""
    registry = Registry()
    registry.add(OPERATIONS, MODEL, model or operation())
    async with serving(Server(posts=[post], polls=[other or PICTURE])) as server:
        providers = {"villain": {"api_base": server.url, "api_key": KEY}}
        options = {"timeout": 5.0, "poll_interval": 0.01, **settings}
        async with impasto.Client(registry=registry, providers=providers, **options) as client:
            yield client, server
