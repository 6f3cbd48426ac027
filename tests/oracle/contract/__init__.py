"""Read the wire contract from ``stability.toml`` and ``bedrock.toml``. Nothing here imports impasto."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

FOLDER = Path(__file__).parent
FILE = "file"
"""The value in the data that stands for a file."""

Kind = Literal["text", "integer", "number", "choice", "image", "audio"]
KINDS: tuple[Kind, ...] = ("text", "integer", "number", "choice", "image", "audio")


@attrs.frozen(kw_only=True)
class Limits:
    """Limits of an image, in pixels; ``aspect`` bounds the longer side over the shorter."""

    min_side: int = 1
    max_side: int | None = None
    min_pixels: int = 1
    max_pixels: int | None = None
    aspect: float | None = None

    def fit(self, width: int, height: int) -> bool:
        """Return True if an image of this size is within the limits."""
        short, long = sorted((width, height))
        return (
            short >= self.min_side
            and (self.max_side is None or long <= self.max_side)
            and width * height >= self.min_pixels
            and (self.max_pixels is None or width * height <= self.max_pixels)
            and (self.aspect is None or long <= self.aspect * short)
        )


@attrs.frozen(kw_only=True)
class Field:
    """A field as the vendor documents it; ``least`` and ``most`` bound a number, a text's length or a sound."""

    kind: Kind
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    limits: Limits = Limits()
    required: bool = False
    default: str | float | None = None
    companions: Mapping[str, Any] = {}
    when: Mapping[str, Mapping[str, Any]] = {}
    open: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        """Return True for an image and a sound."""
        return self.kind in ("image", "audio")


@attrs.frozen(kw_only=True)
class Case:
    """A rule between fields: a request, and the fields that its refusal names (none: it is taken)."""

    why: str
    request: Mapping[str, Any]
    rejects: tuple[str, ...] = ()
    implies: Mapping[str, Any] = {}
    open: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Contract:
    """One operation. ``models`` are the names under which impasto offers it."""

    id: str
    provider: Literal["stability", "bedrock"]
    source: str
    path: str
    fields: Mapping[str, Field]
    models: tuple[str, ...]
    makes: Literal["image", "audio", "3d"] = "image"
    accept: tuple[str, ...] = ()
    results: str | None = None
    alternate_results: str | None = None
    submit_status: int = 200
    limit: int | None = None
    credits: float | None = None
    credits_by_steps: tuple[float, float] | None = None
    usd: float | None = None
    regions: tuple[str, ...] = ()
    unknown: str | None = None
    constants: Mapping[str, str] = {}
    is_default: bool = False
    least: Mapping[str, Any] = {}
    cases: tuple[Case, ...] = ()
    open: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The first of the names."""
        return self.models[0]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the fields that are files."""
        return tuple(name for name, field in self.fields.items() if field.is_file)


def _field(data: str | Mapping[str, Any], shared: Mapping[str, Any], images: Mapping[str, Any]) -> Field:
    spec = dict(shared[data] if isinstance(data, str) else data)
    kind: Kind = next(each for each in KINDS if each in spec)
    rule = spec.pop(kind)
    spec["open"] = tuple(spec.get("open", ()))
    match kind:
        case "choice":
            return Field(kind=kind, choices=tuple(rule), **spec)
        case "image":
            return Field(kind=kind, limits=Limits(**images[rule]), **spec)
    return Field(kind=kind, **dict(zip(("least", "most"), rule, strict=False)), **spec)


def _case(data: Mapping[str, Any]) -> Case:
    lists = {name: tuple(data[name]) for name in ("rejects", "open") if name in data}
    return Case(**{**data, **lists})


def _contracts(provider: Literal["stability", "bedrock"]) -> Iterator[Contract]:
    document = tomllib.loads((FOLDER / f"{provider}.toml").read_text(encoding="utf-8"))
    wire = document.get("wire", {})
    for name, operation in document["operation"].items():
        for variant, own in operation.pop("variants", {"": {}}).items():
            merged = {**operation, **own, "fields": {**operation["fields"], **own.get("fields", {})}}
            fields = {n: _field(each, document["shared"], document["images"]) for n, each in merged["fields"].items()}
            lists = {n: tuple(merged[n]) for n in ("models", "accept", "open", "credits_by_steps") if n in merged}
            if "regions" in merged:
                lists["regions"] = tuple(wire[merged["regions"]])
            merged |= {**lists, "fields": fields, "cases": tuple(map(_case, merged.get("cases", ())))}
            merged.setdefault("limit", wire.get("limit"))
            yield Contract(id=f"{name} {variant}".strip(), provider=provider, **merged)


STABILITY = tuple(_contracts("stability"))
BEDROCK = tuple(_contracts("bedrock"))
EVERY = (*STABILITY, *BEDROCK)
WIRE: Mapping[str, Any] = tomllib.loads((FOLDER / "stability.toml").read_text(encoding="utf-8"))["wire"]
BEDROCK_WIRE: Mapping[str, Any] = tomllib.loads((FOLDER / "bedrock.toml").read_text(encoding="utf-8"))["wire"]
