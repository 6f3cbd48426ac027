"""A third party's provider that streams OpenAI's events, and answers that send them over a real socket."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs

from impasto import (
    Artifact,
    ChargeUnknown,
    Client,
    ContentFiltered,
    Cost,
    EventOutcome,
    FailedArtifact,
    File,
    FlatPrice,
    ImpastoError,
    Operation,
    Partial,
    Provider,
    ProviderFault,
    RateLimited,
    Registry,
    Request,
    Result,
    ServerEvent,
    Usage,
    WireRequest,
    WireResponse,
)
from impasto.dialects import Refusals
from impasto.fields import file, integer, text
from impasto.registry import OPERATIONS
from tests.conftest import KEY
from tests.images import png
from tests.reliability.servers import Answer, Server, head, http, raw, serving

PREVIEWS = [png(8, 8), png(16, 16), png(24, 24)]
FINAL = png(64, 64)
END = b"0\r\n\r\n"


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True, role="prompt")
    partial_images: int | None = integer(0, 3)


@attrs.frozen(kw_only=True)
class EditParams(Params):
    image: File = file(required=True, role="image")


class Dialect:
    def transform_request(self, operation: Operation, request: Request, account: object) -> WireRequest:
        params = {name: value for name, value in attrs.asdict(request.params, recurse=False).items() if value}
        files = [("image", image)] if (image := params.pop("image", None)) else []
        if request.stream:
            params["stream"] = True
        return WireRequest(target=request.target, fields=params, files=files, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}", status=response.status)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        [image] = json.loads(response.body)["data"]
        return Result(artifacts=(artifact(image),))

    def normalize_event(
        self, operation: Operation, request: Request, event: ServerEvent
    ) -> EventOutcome | tuple[EventOutcome, ...] | None:
        if event.data == "[DONE]":
            return None
        body = json.loads(event.data)
        if event.event == "error":
            message, code = body["error"]["message"], body["error"]["code"]
            if code == "moderation_blocked":
                raise ContentFiltered(message, billed="no")
            if code == "slow_down":
                raise Refusals({"slow_down": RateLimited}).in_event(event)
            raise ProviderFault(message, billed="unknown")
        if event.event.endswith(".partial_image"):
            return Partial(artifact(body), body["partial_image_index"])
        if not event.event.endswith(".completed"):
            return None
        usage = Usage(input_tokens=body["usage"]["input_tokens"], output_tokens=body["usage"]["output_tokens"])
        return Result(artifacts=(artifact(body),), usage=usage)


class Gallery(Dialect):
    """Each event of this provider has all images so far, and the number of those that it refused."""

    def normalize_event(self, operation: Operation, request: Request, event: ServerEvent) -> Result:
        body = json.loads(event.data)
        artifacts = tuple(artifact({"b64_json": each}) for each in body["images"])
        refused = range(len(artifacts), len(artifacts) + body.get("refused", 0))
        errors = tuple(FailedArtifact(index=each, error=ContentFiltered("refused", billed="no")) for each in refused)
        return Result(artifacts=artifacts, errors=errors, usage=Usage(input_tokens=0, output_tokens=body["tokens"]))


@attrs.frozen(kw_only=True)
class SeveralParams(Params):
    images: int | None = integer(1, 4)


def artifact(body: dict[str, Any]) -> Artifact:
    return Artifact(data=b64decode(body["b64_json"]), media_type="image/png")


PROVIDER = Provider(name="acme", base_url="https://api.acme.example", key_variable="ACME_API_KEY")
PRICE = FlatPrice(cost=Cost(usd=0.04, as_of="2026-11-01"))
PAINT = Operation(
    id="acme/paint", title="Paint", params=Params, target="/paint", provider=PROVIDER, dialect=Dialect(), price=PRICE
)
RETOUCH = attrs.evolve(PAINT, id="acme/retouch", title="Retouch", params=EditParams, target="/retouch")
GALLERY = attrs.evolve(PAINT, dialect=Gallery(), params=SeveralParams, native_n=("images", 4))


def event(name: str, **body: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **body})}\n\n".encode()


def preview(index: int, image: bytes | None = None, kind: str = "image_generation") -> bytes:
    encoded = b64encode(PREVIEWS[index % 3] if image is None else image).decode()
    return event(f"{kind}.partial_image", b64_json=encoded, partial_image_index=index, created_at=1)


def completed(image: bytes = FINAL, kind: str = "image_generation") -> bytes:
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    return event(f"{kind}.completed", b64_json=b64encode(image).decode(), created_at=1, usage=usage)


def gallery(*images: bytes, tokens: int = 1, refused: int = 0) -> bytes:
    return event("images", images=[b64encode(each).decode() for each in images], tokens=tokens, refused=refused)


def failed(code: str) -> bytes:
    return event("error", error={"message": f"it ended with {code}", "code": code})


HEAD = head(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream(*pieces: bytes | float, end: str = "", last: bytes = END) -> Answer:
    """Send events as chunks of HTTP, and wait where a number stands."""
    chunks: Sequence[bytes | float] = [chunk(each) if isinstance(each, bytes) else each for each in pieces]
    return raw(HEAD, *chunks, *([last] if last else []), end=end)


def whole(image: bytes = FINAL) -> Answer:
    """Answer without a stream."""
    body = json.dumps({"data": [{"b64_json": b64encode(image).decode()}]}).encode()
    return http(200, body, content_type="application/json")


@asynccontextmanager
async def painting(*answers: Answer, **settings: Any) -> AsyncIterator[tuple[Client, Server]]:
    registry = Registry()
    registry.add(OPERATIONS, "acme/paint", settings.pop("model", PAINT))
    async with serving(Server(posts=[*answers])) as server:
        providers = {"acme": {"api_base": server.url, "api_key": KEY}}
        settings = {"timeout": 20, **settings}
        async with Client(registry=registry, providers=providers, **settings) as client:
            yield client, server


async def collect(client: Client, **params: Any) -> list[Partial | Result]:
    return [each async for each in client.stream("acme/paint", prompt="a kite", **params)]


def images(outcomes: list[Partial | Result]) -> list[bytes]:
    return [each.artifact.data if isinstance(each, Partial) else each.artifacts[0].data for each in outcomes]
