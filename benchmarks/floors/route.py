"""The least route that still has plugins: checked parameters, four hooks, one transport. No errors, limits or times."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Literal

import attrs
import cattrs
import pluggy
from attrs import validators

hookspec = pluggy.HookspecMarker("floor")
hookimpl = pluggy.HookimplMarker("floor")

converter = cattrs.Converter(forbid_extra_keys=True)


@attrs.frozen(kw_only=True)
class Request:
    operation: str
    params: Any


@attrs.frozen(kw_only=True)
class WireRequest:
    target: str
    fields: Mapping[str, str | int | float]
    files: Mapping[str, bytes]
    method: str = "POST"


@attrs.frozen(kw_only=True)
class WireResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen(kw_only=True)
class Picture:
    data: bytes
    media_type: str
    seed: int


@attrs.frozen(kw_only=True)
class Result:
    artifacts: tuple[Picture, ...]
    request_id: str | None = None


class Specs:
    @hookspec(firstresult=True)
    def transform_request(self, request: Request) -> WireRequest | None: ...
    @hookspec(firstresult=True)
    def send(self, wire: WireRequest) -> Awaitable[WireResponse] | None: ...
    @hookspec(firstresult=True)
    def classify_error(self, request: Request, response: WireResponse) -> Exception | None: ...
    @hookspec(firstresult=True)
    def normalize_response(self, request: Request, response: WireResponse) -> Result | None: ...


@attrs.frozen(kw_only=True)
class Params:
    """The fields of ``stability/stable-image-core``."""

    prompt: str = attrs.field(validator=validators.max_len(10_000))
    negative_prompt: str | None = attrs.field(default=None, validator=validators.optional(validators.max_len(10_000)))
    aspect_ratio: Literal["21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21"] = "1:1"
    seed: int = attrs.field(default=0, validator=[validators.ge(0), validators.le(4_294_967_294)])
    style_preset: Literal["anime", "cinematic", "photographic"] | None = None
    output_format: Literal["png", "jpeg", "webp"] = "png"


def _exactly(expected: type) -> Any:
    def structure(value: object, _: object) -> object:
        if type(value) is not expected:
            raise TypeError(f"expected {expected.__name__}")
        return value

    return structure


for _scalar in (str, int, bytes):
    converter.register_structure_hook(_scalar, _exactly(_scalar))


class Operation:
    """One model: its parameters, and how they go out and come back."""

    id = "floor/core"

    def request(self, **given: object) -> Request:
        return Request(operation=self.id, params=converter.structure(given, Params))

    @hookimpl
    def transform_request(self, request: Request) -> WireRequest:
        fields: dict[str, str | int | float] = {}
        files: dict[str, bytes] = {}
        for attribute in attrs.fields(type(request.params)):
            value = getattr(request.params, attribute.name)
            if value is None:
                continue
            if attribute.metadata.get("file"):
                files[attribute.name] = value
            else:
                fields[attribute.name] = value
        return WireRequest(target="/v2beta/stable-image/generate/core", fields=fields, files=files)

    @hookimpl
    def normalize_response(self, response: WireResponse) -> Result:
        headers = response.headers
        picture = Picture(data=response.body, media_type=headers["content-type"], seed=int(headers["seed"]))
        return Result(artifacts=(picture,), request_id=headers.get("x-request-id"))


class Route:
    """The operation bound to a transport."""

    def __init__(self, transport: object) -> None:
        self.operation = Operation()
        manager = pluggy.PluginManager("floor")
        manager.add_hookspecs(Specs)
        manager.register(transport)
        manager.register(self.operation)
        manager.check_pending()
        self.hook = manager.hook

    async def __call__(self, request: Request) -> Result:
        wire = self.hook.transform_request(request=request)
        response = await self.hook.send(wire=wire)
        error = self.hook.classify_error(request=request, response=response)
        if error is not None:
            raise error
        result: Result = self.hook.normalize_response(request=request, response=response)
        return result
