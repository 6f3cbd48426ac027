"""A minimal request for every operation, and for every field values on both sides of its bounds.

The bounds are read from the parameter classes; that those are the vendor's is shown by ``tests/oracle``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import attrs

from impasto import Operation
from impasto.fields import Field
from impasto.registry import OPERATIONS, Registry
from tests.images import png
from tests.media import wav

IMAGE = png(128, 96)
AUDIO = wav(10)
JOBS = {
    "/v2beta/stable-image/upscale/creative",
    "/v2beta/stable-image/edit/replace-background-and-relight",
    "/v2beta/audio/stable-audio/text-to-audio",
    "/v2beta/audio/stable-audio/audio-to-audio",
    "/v2beta/audio/stable-audio/inpaint",
}
HUGE = 10**5000


def _installed() -> dict[str, Operation]:
    registry = Registry()
    found = {name: registry.operation(name) for name in registry.names(OPERATIONS) if name.startswith("stability/")}
    return {operation.id: operation for operation in found.values()}


BY_NAME = _installed()
"""Every operation object that an installed name of the direct provider leads to, by its own id."""

BY_TARGET = {operation.target: operation for operation in reversed(BY_NAME.values())}
"""One operation for each address."""

EXTRA: dict[str, dict[str, object]] = {
    "edit/outpaint": {"left": 1},
    "edit/replace-background-and-relight": {"background_prompt": "a beach"},
}
"""What a rule between fields asks for beyond the required ones."""

COMPANIONS: dict[tuple[str, str], dict[str, object]] = {
    ("generate/ultra", "image"): {"strength": 0.5},
    ("generate/sd3", "image"): {"strength": 0.5},
    ("generate/sd3", "strength"): {"image": IMAGE},
    ("edit/outpaint", "left"): {"right": 1},
    ("edit/replace-background-and-relight", "light_source_strength"): {"light_source_direction": "left"},
}
"""What goes with a field where a rule ties it to others."""


def tail(operation: Operation) -> str:
    """The address without what all have in common: ``edit/erase``."""
    return operation.target.removeprefix("/v2beta/stable-image/")


def minimal(operation: Operation) -> dict[str, object]:
    """Return a request with the required fields only."""
    values = {"text": "a lighthouse", "file": AUDIO if operation.output == "audio" else IMAGE}
    required = {name: values[field.kind] for name, field in operation.fields.items() if field.required}
    return {**required, **EXTRA.get(tail(operation), {})}


def request(operation: Operation, name: str, value: object) -> dict[str, object]:
    """The minimal request in which a field has this value."""
    beside = COMPANIONS.get((tail(operation), name), {})
    if (name, value) == ("mode", "image-to-image"):
        beside = {"image": IMAGE, "strength": 0.5}
    return {**minimal(operation), **beside, name: value}


def on_the_wire(operation: Operation, arguments: dict[str, object]) -> dict[str, object]:
    """What must arrive: what was given, the operation's own ``model``, and sd3's implied mode. No default."""
    expected = {name: value for name, value in arguments.items() if value is not None}
    if tail(operation) == "generate/sd3" and "image" in expected:
        expected["mode"] = "image-to-image"
    return expected | dict(operation.constants)


def inside(field: Field) -> Iterator[object]:
    """Values that are taken, up to each bound."""
    match field.kind:
        case "text":
            assert field.maximum is not None
            most = int(field.maximum)
            yield "x"
            yield "x" * most
            yield "\U0001f30a" * most
            yield "e\u0301" * (most // 2)
            yield "\r\n--\t\x1b[1m\x7f\u202e\u200d \"';%n{{7*7}} (word:999)"
            if not field.minimum:
                yield ""
        case "choice":
            yield from field.choices
        case "integer":
            low, high = _bounds(field)
            yield from (low, low + 1, high - 1, high)
        case "number":
            low, high = _bounds(field)
            yield from (low, high, math.nextafter(low, high), math.nextafter(high, low), (low + high) / 2)
            yield from (int(bound) for bound in (low, high) if bound == int(bound))


def outside(field: Field) -> Iterator[tuple[object, str]]:
    """Values that are refused, and what must be said of each."""
    yield [1], "must be"
    yield {"a": 1}, "must be"
    match field.kind:
        case "text":
            assert field.maximum is not None
            most = int(field.maximum)
            for long in ("x" * (most + 1), "\U0001f30a" * most + "x", "e\u0301" * (most // 2) + "x"):
                yield long, f"must be {field.describe_constraint()}, got {most + 1:,}"
            yield "a\x00b", "must not contain a NUL character"
            yield "a\ud83c", "half a surrogate pair"
            for other, words in ((5, "a whole number"), (0.5, "a number"), (True, "true or false"), (b"x", "bytes")):
                yield other, f"must be text, not {words}"
            if field.minimum:
                yield "", f"must be {field.describe_constraint()}, got 0"
                yield " \t\n", "must not be blank"
        case "choice":
            first = field.choices[0]
            for near in (first.upper() + "X", f"{first} ", first[:-1], "", 7, True, b"png"):
                yield near, f"must be one of {', '.join(field.choices)}, not "
        case "integer" | "number":
            low, high = _bounds(field)
            wrong: list[object] = [True, False, "1", "0.5", "", HUGE, -HUGE, Decimal(1), 1j]
            wrong += [math.nan, math.inf, -math.inf]
            if field.kind == "integer":
                wrong += [low - 1, high + 1, float(low), float(high)]
            else:
                wrong += [math.nextafter(low, -math.inf), math.nextafter(high, math.inf), low - 1, high + 1]
                wrong += [1e-400] if low > 0 else []
            for value in wrong:
                yield value, f"must be {field.describe_constraint()}, not "


def _bounds(field: Field) -> tuple[Any, Any]:
    assert field.minimum is not None
    assert field.maximum is not None
    return field.minimum, field.maximum


@attrs.frozen
class Rule:
    """A rule between fields: what is taken, and what is refused for which field with which words."""

    operation: str
    taken: tuple[dict[str, object], ...] = ()
    refused: tuple[tuple[dict[str, object], dict[str, str]], ...] = ()


_TO_IMAGE = {"mode": "image-to-image", "image": IMAGE, "strength": 0.5}
_NO_SIDE = {"left": "at least one of left, right, up, down must be above 0"}
_NO_BACKGROUND = {"background_prompt": "give at least one of background_prompt and background_reference"}
_NO_LIGHT = {
    "light_source_strength": "only with light_reference or light_source_direction; give one of them or leave it out"
}
_ASPECT = "not allowed when mode is image-to-image; leave it out"
_TEXT_ONLY = "not allowed when mode is text-to-image; leave it out"
_NEEDED = "required when mode is image-to-image"

RULES = (
    Rule(
        "stability/sd3.5-large",
        taken=(
            {},
            {"mode": "text-to-image", "aspect_ratio": "16:9"},
            _TO_IMAGE,
            {"image": IMAGE, "strength": 0},
            {"image": IMAGE, "strength": 1.0, "mode": None},
        ),
        refused=(
            ({**_TO_IMAGE, "aspect_ratio": "1:1"}, {"aspect_ratio": _ASPECT}),
            ({"image": IMAGE, "strength": 1, "aspect_ratio": "16:9"}, {"aspect_ratio": _ASPECT}),
            ({"mode": "image-to-image"}, {"image": _NEEDED, "strength": _NEEDED}),
            ({"mode": "image-to-image", "image": IMAGE}, {"strength": _NEEDED}),
            ({"mode": "image-to-image", "strength": 0.5}, {"image": _NEEDED}),
            ({"image": IMAGE}, {"strength": _NEEDED}),
            ({"image": IMAGE, "aspect_ratio": "1:1"}, {"strength": _NEEDED, "aspect_ratio": _ASPECT}),
            ({"strength": 0.5}, {"strength": _TEXT_ONLY}),
            ({"mode": "text-to-image", "strength": 0.5}, {"strength": _TEXT_ONLY}),
            ({**_TO_IMAGE, "mode": "text-to-image"}, {"image": _TEXT_ONLY, "strength": _TEXT_ONLY}),
        ),
    ),
    Rule(
        "stability/stable-image-ultra",
        taken=({}, {"strength": 0.5}, {"image": IMAGE, "strength": 0}, {"aspect_ratio": "9:21"}),
        refused=(({"image": IMAGE}, {"strength": "required when image is given"}),),
    ),
    Rule(
        "stability/outpaint",
        taken=(
            {"left": None, "right": 1},
            {"left": None, "up": 1},
            {"left": None, "down": 1},
            {"left": 2000, "right": 2000, "up": 2000, "down": 2000},
            {"left": 0, "down": 1},
        ),
        refused=(
            ({"left": None}, _NO_SIDE),
            ({"left": 0}, _NO_SIDE),
            ({"left": 0, "right": 0, "up": 0, "down": 0}, _NO_SIDE),
        ),
    ),
    Rule(
        "stability/replace-background-and-relight",
        taken=(
            {},
            {"background_prompt": None, "background_reference": IMAGE},
            {"background_reference": IMAGE},
            {"light_source_direction": "above"},
            {"light_reference": IMAGE},
            {"light_source_direction": "above", "light_source_strength": 0.3},
            {"light_reference": IMAGE, "light_source_strength": 0.3},
            {"light_reference": IMAGE, "light_source_direction": "left", "light_source_strength": 1},
            {"keep_original_background": "true"},
        ),
        refused=(
            ({"background_prompt": None}, _NO_BACKGROUND),
            ({"background_prompt": None, "keep_original_background": "true"}, _NO_BACKGROUND),
            ({"light_source_strength": 0.3}, _NO_LIGHT),
            ({"background_prompt": None, "light_source_strength": 0.3}, _NO_BACKGROUND | _NO_LIGHT),
        ),
    ),
)
