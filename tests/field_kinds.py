"""A third party's model that has a field of each kind, in one module."""

from __future__ import annotations

MODULE = """
import attrs
from impasto import Artifact, ChargeUnknown, Cost, File, FileRef, FlatPrice, Operation, Provider, Result, WireRequest
from impasto import fields as f
from impasto.ext import media_type_of
from impasto.rules import Excludes


def anything(file):
    return ()


def too_dark(file):
    return ["is too dark"] if file.read() == b"dark" else []


@attrs.frozen(kw_only=True)
class Style:
    strength: float | None = f.number(0, 1)
    reference: File | None = f.file(anything, role=None)
    layers: tuple[File, ...] | None = f.files(maximum=2, role=None, inspect=anything)


@attrs.frozen(kw_only=True)
class Member:
    color: str = f.color(required=True)
    weight: float | None = f.number(0.05, 1)


@attrs.frozen(kw_only=True)
class Subject:
    image: File = f.file(too_dark, role=None, required=True)
    kind: str | None = f.choice("person", "product")
    details: tuple[File, ...] | None = f.files(maximum=2, role=None, inspect=anything)


@attrs.frozen(kw_only=True)
class Canvas:
    width: int | None = f.integer(64, 2048, step=64)
    height: int | None = f.integer(64, 2048, step=64)


@attrs.frozen(kw_only=True)
class Params:
    text: str = f.text(1, 100, required=True, role="prompt")
    images: tuple[File, ...] | None = f.files(maximum=3, inspect=anything)
    colors: tuple[str, ...] | None = f.texts(3)
    tile: bool | None = f.boolean()
    width: int | None = f.integer(256, 1440, step=32)
    height: int | None = f.integer(256, 1440, step=32)
    background: str | None = f.color()
    style: Style | None = f.group(Style)
    weights: tuple[float, ...] | None = f.numbers(3, lowest=0, highest=1)
    members: tuple[Member, ...] | None = f.groups(Member, 4)
    subjects: tuple[Subject, ...] | None = f.groups(Subject, 3)
    canvas: Canvas | str | None = f.group(Canvas, choices=("square_hd", "wide"))


def to_json(value):
    if isinstance(value, File):
        return FileRef(value)
    if isinstance(value, tuple):
        return [to_json(each) for each in value]
    if attrs.has(type(value)):
        names = [each.name for each in attrs.fields(type(value))]
        return {name: to_json(getattr(value, name)) for name in names if getattr(value, name) is not None}
    return value


class Dialect:
    def transform_request(self, operation, request, account):
        return WireRequest(target=request.target, fields=to_json(request.params), encoding="json")

    def classify_error(self, operation, response):
        return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}", status=response.status)

    def normalize_response(self, operation, request, response):
        return Result(artifacts=(Artifact(data=response.body, media_type=media_type_of(response.body[:16])),))


kinds = Operation(
    id="kinds/all",
    title="All kinds",
    params=Params,
    target="/v1/all",
    provider=Provider(name="kinds", base_url="https://api.kinds.example", key_variable="KINDS_KEY"),
    dialect=Dialect(),
    price=FlatPrice(cost=Cost(usd=0.02, as_of="2026-01-01")),
    media_types=("image/gif",),
    rules=(Excludes("style.layers", None, ("background",)),),
)
"""

POINTS = {"impasto.operations": {"kinds/all": "impasto_kinds_all:kinds"}}
MODULES = {"impasto_kinds_all": MODULE}
GIF = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00"
GIF += b"\x02\x02D\x01\x00;"
"""An image of one dot."""
