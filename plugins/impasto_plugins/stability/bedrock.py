"""The dialect of Amazon Bedrock: one JSON object out, JSON arrays back; and the Bedrock variants of models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import attrs

from impasto import (
    Account,
    Artifact,
    ConfigError,
    ContentFiltered,
    Cost,
    FailedArtifact,
    File,
    FlatPrice,
    ImpastoError,
    InvalidRequest,
    Operation,
    Problem,
    ProviderFault,
    Request,
    Result,
    UnusableResult,
    WireRequest,
    WireResponse,
)
from impasto.dialects import DATA_URI, decode_base64, split_files, unusable
from impasto.ext import printable
from impasto.fields import KEY, Field
from impasto.rules import Rule
from impasto_plugins.bedrock import bedrock, refusal

from . import guardrail
from .answers import IMAGE, result
from .fields import BEDROCK_BYTES

AS_OF = "2026-11"
GENERATOR_REGIONS = ("us-west-2",)
SERVICE_REGIONS = ("us-east-1", "us-east-2", "us-west-2")
_FILTERED = "Filter reason"
_MAX_REST_BYTES = 64 * 1024
"""Bytes that an answer on disk may have before its image, and after it."""

_IMAGE_START = re.compile(rb'"images"\s*:\s*\[\s*"')


@attrs.frozen
class BedrockDialect:
    """The dialect. ``regions`` are those that serve the model under its own address."""

    regions: tuple[str, ...]

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        """Return the JSON request of a call; the guardrail's fields are headers. Raises InvalidRequest for a job."""
        if request.job is not None:
            raise InvalidRequest([Problem("id", "Bedrock answers at once: it has no jobs to resume")])
        if request.target.startswith("arn:"):
            _check_arn(request.target, operation)
        fields, files = split_files(operation, request.params)
        headers = {guardrail.HEADERS[name]: str(fields.pop(name)) for name in guardrail.HEADERS if name in fields}
        return WireRequest(
            target=request.target,
            fields=fields,
            files=files,
            headers=headers,
            max_bytes=operation.max_bytes,
            regions=self.regions,
        )

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """Return Bedrock's refusal, ChargeUnknown for an answer of somebody else, or None for a success."""
        kind = response.media_type
        if response.status == 200 and (kind in ("application/json", "") or not response.body):
            return None  # an answer without a type is complete, and was charged: normalize_response reads it
        return refusal(response)

    def is_artifact_body(self, operation: Operation, response: WireResponse) -> bool:
        """Return True for a successful answer: its JSON contains the image."""
        return response.status == 200 and response.media_type == "application/json"

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        """Return the images of an answer. Raises the first failure if no image is usable."""
        images, rest = _split(response)
        artifacts: list[Artifact] = []
        failures: list[FailedArtifact] = []
        # Only answers with one image are known. If there are more, each was charged: a failure of one drops no other.
        entries = zip_longest(images, _list(rest, "finish_reasons"), _list(rest, "seeds"))
        for index, (image, reason, seed) in enumerate(entries):
            try:
                artifacts += _artifacts(response, image, reason, seed)
            except (ContentFiltered, ProviderFault, UnusableResult) as error:
                failures.append(FailedArtifact(index=index, error=error))
        if not artifacts:
            raise failures[0].error if failures else unusable("has no image", response)
        return Result(artifacts=tuple(artifacts), errors=tuple(failures), request_id=response.request_id)


def _check_arn(arn: str, operation: Operation) -> None:
    """Refuse the ARN of another service, and one whose model differs from the one that builds the body."""
    _, _, service, _, _, resource = arn.split(":", 5)
    if service != "bedrock":
        raise ConfigError(f"{printable(arn)} is not an ARN of Bedrock")
    model_name = resource.partition("/")[2].removeprefix("us.")
    if model_name.startswith("stability.") and model_name != operation.target.removeprefix("us."):
        raise ConfigError(
            f"the ARN names {printable(model_name)}, but base_model is {operation.id}: give the same model"
        )


def _artifacts(response: WireResponse, image: object, reason: object, seed: object) -> tuple[Artifact, ...]:
    """Return the image at one index of the arrays, if there is one. Raises the error that is there instead."""
    failure = printable(reason) if isinstance(reason, str) else None
    data = _decode_image(response, image)
    if not data:
        if failure is not None:
            raise _reason_error(failure, response)
        return ()
    # No image beside a reason is known; if it comes, it is not lost.
    artifacts = result(IMAGE, response, data, reason, seed).artifacts
    if failure is not None and failure.startswith(_FILTERED):
        raise _reason_error(failure, response, artifacts)
    return artifacts


def _split(response: WireResponse) -> tuple[list[object], Mapping[str, object]]:
    """Return ``images``, of which the first is decoded without a JSON parser, and the rest of the object as JSON."""
    body, file = response.body, response.file
    first: bytes | File = b""
    try:
        first, body = _extract_image(body) if file is None else _extract_image_on_disk(file)
    except ValueError:  # JSON's escapes in it (some write "/" as "\\/"), or another alphabet: use the JSON parser
        body = body if file is None else file.read()
    rest = _object(body, response)
    images = _list(rest, "images")
    return [first, *images[1:]] if images[:1] == [""] else images, rest


def _extract_image(body: bytes) -> tuple[bytes, bytes]:
    """Return the first image and the JSON without it. Raises ValueError if there is none in plain base64."""
    import pybase64  # of the extra, and only for answers of Bedrock

    quote, start = _find_image(body)
    end = body.find(b'"', start)
    return pybase64.b64decode(memoryview(body)[start:end], validate=True), body[:quote] + body[end:]


def _extract_image_on_disk(file: File) -> tuple[File, bytes]:
    """Return the first image of a file, decoded as it is read, and the JSON without it.

    Raises ValueError and OSError.
    """
    from .base64_file import PIECE, decode_part

    with file.open() as source:
        head = source.read(_MAX_REST_BYTES)
        quote, start = _find_image(head)
        end = source.seek(start)
        while (at := (piece := source.read(PIECE)).find(b'"')) < 0 and piece:
            end += len(piece)
        end = source.seek(end + max(at, 0))
        rest = source.read(_MAX_REST_BYTES + 1)
    if len(rest) > _MAX_REST_BYTES:
        raise ValueError("too many bytes after the image")
    return decode_part(file, start, end), head[:quote] + rest


def _find_image(body: bytes) -> tuple[int, int]:
    """Return the positions after the first image's quote and after the prefix of a ``data:`` URI."""
    if (found := _IMAGE_START.search(body)) is None:
        raise ValueError("no image")
    prefix = DATA_URI.match(body, found.end())
    return found.end(), found.end() if prefix is None else prefix.end()


def _decode_image(response: WireResponse, image: object) -> bytes | File:
    if isinstance(image, bytes | File):
        return image
    try:
        return decode_base64(image) if isinstance(image, str) else b""
    except ValueError:
        raise unusable("has invalid base64", response) from None


def _object(body: bytes, response: WireResponse) -> Mapping[str, object]:
    try:
        rest = json.loads(body)
    except (ValueError, RecursionError):
        raise unusable("is invalid JSON" if body else "is empty", response) from None
    if not isinstance(rest, dict):
        raise unusable("is JSON, but not an object", response)
    return rest


def _list(rest: Mapping[str, object], name: str) -> list[object]:
    values = rest.get(name)
    return values if isinstance(values, list) else []


def _reason_error(reason: str, response: WireResponse, artifacts: tuple[Artifact, ...] = ()) -> ImpastoError:
    kind = ContentFiltered if reason.startswith(_FILTERED) else ProviderFault
    error = kind(f"{reason}; it may have been charged", status=200, name=reason, request_id=response.request_id)
    error.billed, error.retryable = "unknown", False
    if isinstance(error, ContentFiltered):
        error.artifacts = artifacts
    return error


def variant(
    operation: Operation,
    target: str,
    price: float,
    *,
    without: tuple[str, ...] = (),
    rules: tuple[Rule, ...] | None = None,
    **changes: Any,
) -> Operation:
    """Return an operation as Bedrock serves it: ``changes`` replace fields, ``without`` names fields it lacks.

    The target of an image service is its ``us.`` profile, that of a generator its bare id. The three guardrail fields
    are added.
    """
    service = target.startswith("us.")
    return attrs.evolve(
        operation,
        id=f"bedrock/{target}",
        params=_params(operation, without, changes),
        target=target,
        provider=bedrock,
        dialect=BedrockDialect(SERVICE_REGIONS if service else GENERATOR_REGIONS),
        price=FlatPrice(cost=Cost(usd=price, as_of=AS_OF)),
        rules=(*(operation.rules if rules is None else rules), *guardrail.RULES),
        constants={},
        max_bytes=BEDROCK_BYTES,
    )


def _params(operation: Operation, without: tuple[str, ...], changes: Mapping[str, Any]) -> type[attrs.AttrsInstance]:
    fields: dict[str, Any] = {}
    for attribute in attrs.fields(operation.params):
        if attribute.name not in without:
            fields[attribute.name] = _as_on_bedrock(attribute.metadata[KEY], changes.get(attribute.name))
    fields |= {name: field for name, field in changes.items() if name not in fields}
    fields |= guardrail.fields()
    params_class = attrs.make_class("Params", fields, frozen=True, kw_only=True)
    params_class.__doc__ = f"Parameters of {operation.title} on Bedrock."
    return params_class


def _as_on_bedrock(spec: Field, change: Any) -> Any:
    """Return a field as Bedrock has it. ``change`` replaces its limits; its meaning is the same."""
    if change is not None:
        spec = attrs.evolve(change.metadata[KEY], description=spec.description)
    elif spec.role == "prompt":
        spec = attrs.evolve(spec, minimum=0)  # AWS states no minimum length
    return attrs.field(default=attrs.NOTHING if spec.required else None, metadata={KEY: spec})
