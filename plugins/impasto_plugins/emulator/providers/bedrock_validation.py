"""Checks a JSON body against a Bedrock model's parameter class, with its limits and rules."""

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
from .form_validation import ValidatedForm, ValidationFailed

_SLUGS = {"remove-background": "remove-bg"}
"""Names of services in messages that differ from the word in their id."""

_DOCUMENTED_FIELDS = {
    "us.stability.stable-image-control-sketch-v1:0": (
        "image, prompt, control_strength, negative_prompt, seed, output_format, style_preset"
    ),
    "stability.stable-image-ultra-v1:0": (
        "prompt, negative_prompt, mode, strength, seed, output_format, image, aspect_ratio"
    ),
}
"""Models whose list of fields is established, in its order; it is unknown for the others."""


def parse_object(body: bytes) -> dict[str, object]:
    """Return the body's JSON object. Raises ValidationFailed."""
    try:
        values = json.loads(body, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValidationFailed(
            ["Malformed input request: the body is not a JSON object, please reformat your input and try again."]
        )
    return values


def check_body(operation: Operation, body: Mapping[str, object]) -> ValidatedForm:
    """Return the values of a body, files as bytes. Raises ValidationFailed with Bedrock's message."""
    fields = {name: field for name, field in operation.fields.items() if name not in guardrail.HEADERS}
    if unknown_names := [name for name in body if name not in fields]:
        raise ValidationFailed([detail_message(_unknown_field_message(operation, unknown_names[0], list(fields)))])
    missing = [name for name, field in fields.items() if field.required and name not in body]
    if missing and not operation.target.startswith(PROFILE):
        missing_key = f"required key [{missing[0]}] not found"
        raise ValidationFailed(
            [f"Malformed input request: #: {missing_key}, please reformat your input and try again."]
        )
    values: dict[str, object] = {}
    entries = [f"{name}: required" for name in missing]
    for name, value in body.items():
        try:
            values[name] = _value(fields[name], value)
        except ValueError as error:
            entries.append(f"{name}: {error}")
    for rule in () if entries else operation.rules:
        entries += [f"{problem.field}: {problem.message}" for problem in rule.problems(values)]
    if entries:
        raise ValidationFailed([detail_message("; ".join(entries))])
    return ValidatedForm(operation, {n: v.read() if isinstance(v, File) else v for n, v in values.items()})


def decode_image(value: str) -> bytes:
    """Return the bytes of base64 text without a prefix or line breaks. Raises ValueError."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be valid base64") from None


def _value(field: Field, value: object) -> object:
    if field.kind == "choice" and value not in field.choices:  # the field itself takes jpg for jpeg
        raise ValueError(f"must be one of {', '.join(field.choices)}")
    if field.kind != "file":
        return field.check(value)
    if not isinstance(value, str):
        raise ValueError(f"must be base64 text, not {kind_in_words(value)}")
    return field.check(decode_image(value))


def _unknown_field_message(operation: Operation, name: str, fields: list[str]) -> str:
    """Return the message for unknown fields: a service names itself and the field, a generator its own fields."""
    target = operation.target
    names = _DOCUMENTED_FIELDS[target].split(", ") if target in _DOCUMENTED_FIELDS else fields
    if not target.startswith(PROFILE):
        return f"Invalid field in request. Available fields: {names}"
    word = target.rpartition(".")[2].partition("-v1:")[0].removeprefix("stable-").removeprefix("image-")
    return f"Invalid field '{name}' in request. Available fields for {_SLUGS.get(word, word)} are: {', '.join(names)}"


def detail_message(message: str) -> str:
    """Return the message for a field, which is itself JSON text."""
    return json.dumps({"detail": message}, separators=(",", ":"))


def _reject_constant(word: str) -> object:
    raise ValueError(word)
