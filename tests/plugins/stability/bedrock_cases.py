"""A minimal request for every model of Bedrock's, and for every field. ``cases`` has the values."""

from __future__ import annotations

from impasto import Operation
from impasto.registry import OPERATIONS, Registry
from impasto_plugins.stability.guardrail import HEADERS
from tests.images import png

IMAGE = png(128, 96)
LARGE = png(640, 700)
SD35 = "stability.sd3-5-large-v1:0"
SD3 = "stability.sd3-large-v1:0"
OUTPAINT = "us.stability.stable-outpaint-v1:0"


def _installed() -> dict[str, Operation]:
    registry = Registry()
    found = (registry.operation(name) for name in registry.names(OPERATIONS) if name.startswith("bedrock/"))
    return {operation.target: operation for operation in found}


MODELS = _installed()
"""Every model of Bedrock's that an installed name leads to, by its id in the path."""


def image_for(operation: Operation) -> bytes:
    return LARGE if operation.target == SD3 else IMAGE


def minimal(operation: Operation) -> dict[str, object]:
    """Return a request with the required fields only."""
    values = {"text": "a lighthouse", "file": image_for(operation)}
    required: dict[str, object] = {
        name: values[field.kind] for name, field in operation.fields.items() if field.required
    }
    if operation.target == OUTPAINT:
        required["left"] = 1
    return required


def request(operation: Operation, name: str, value: object) -> dict[str, object]:
    """The minimal request in which a field has this value."""
    beside: dict[str, object] = {}
    if operation.target in (SD35, SD3):
        image = image_for(operation)
        if name == "image":
            beside = {"strength": 0.5}
        elif name == "strength":
            beside = {"image": image}
        elif (name, value) == ("mode", "image-to-image"):
            beside = {"image": image, "strength": 0.5}
    elif (operation.target, name) == (OUTPAINT, "left"):
        beside = {"right": 1}
    return {**minimal(operation), **beside, name: value}


def in_body(operation: Operation, arguments: dict[str, object]) -> dict[str, object]:
    """What the body must hold: what was given but for the guardrail, and sd3's implied mode. No default."""
    body = {name: value for name, value in arguments.items() if value is not None and name not in HEADERS}
    if operation.target in (SD35, SD3) and "image" in body:
        body["mode"] = "image-to-image"
    return body
