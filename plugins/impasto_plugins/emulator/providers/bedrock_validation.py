"""Checks a JSON body against a Bedrock model's parameter class, whose bounds, limits and rules it reads."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

from impasto import File, Operation
from impasto.ext import kind_in_words
from impasto.fields import Field
from impasto_plugins.stability import guardrail

from .bedrock_models import PROFILE
from .form_validation import Checked, Wrong

_SLUGS = {"remove-background": "remove-bg"}
"""What a service calls itself, where that is not the word in its id."""

_SEEN = {
    "us.stability.stable-image-control-sketch-v1:0": (
        "image, prompt, control_strength, negative_prompt, seed, output_format, style_preset"
    ),
    "stability.stable-image-ultra-v1:0": (
        "prompt, negative_prompt, mode, strength, seed, output_format, image, aspect_ratio"
    ),
}
"""The models whose list of fields was seen, in its order; nobody has told that of the others."""


def object_of(body: bytes) -> dict[str, object]:
    """The body's JSON object. Raises Wrong."""
    try:
        told = json.loads(body, parse_constant=_not_json)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise Wrong(["Malformed input request: the body is no JSON object, please reformat your input and try again."])
    return told


def check_body(operation: Operation, body: Mapping[str, object]) -> Checked:
    """The values of a body; files are their bytes. Raises Wrong, with the message that Bedrock gives."""
    fields = {name: field for name, field in operation.fields.items() if name not in guardrail.HEADERS}
    if unknown := [name for name in body if name not in fields]:
        raise Wrong([detail(_unknown(operation, unknown[0], list(fields)))])
    missing = [name for name, field in fields.items() if field.required and name not in body]
    if missing and not operation.target.startswith(PROFILE):
        wanted = f"required key [{missing[0]}] not found"
        raise Wrong([f"Malformed input request: #: {wanted}, please reformat your input and try again."])
    given: dict[str, object] = {}
    entries = [f"{name}: required" for name in missing]
    for name, value in body.items():
        try:
            given[name] = _value(fields[name], value)
        except ValueError as error:
            entries.append(f"{name}: {error}")
    for rule in () if entries else operation.rules:
        entries += [f"{problem.field}: {problem.message}" for problem in rule.problems(given)]
    if entries:
        raise Wrong([detail("; ".join(entries))])
    return Checked(operation, {n: v.read() if isinstance(v, File) else v for n, v in given.items()})


def picture_of(value: str) -> bytes:
    """The bytes of base64 text, without a prefix or line breaks. Raises ValueError."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is no base64") from None


def _value(field: Field, value: object) -> object:
    if field.kind != "file":
        return field.check(value)
    if not isinstance(value, str):
        raise ValueError(f"must be base64 text, not {kind_in_words(value)}")
    return field.check(picture_of(value))


def _unknown(operation: Operation, name: str, fields: list[str]) -> str:
    """Services name themselves and the field; a generator was seen to name only its own fields."""
    target = operation.target
    listed = _SEEN[target].split(", ") if target in _SEEN else fields
    if not target.startswith(PROFILE):
        return f"Invalid field in request. Available fields: {listed}"
    word = target.rpartition(".")[2].partition("-v1:")[0].removeprefix("stable-").removeprefix("image-")
    return f"Invalid field '{name}' in request. Available fields for {_SLUGS.get(word, word)} are: {', '.join(listed)}"


def detail(message: str) -> str:
    """The message of a fault in a field is itself JSON text."""
    return json.dumps({"detail": message}, separators=(",", ":"))


def _not_json(word: str) -> object:
    raise ValueError(word)
