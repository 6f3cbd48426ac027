"""The dialect of api.stability.ai (v2beta): multipart out; picture bytes, or a job's id, back."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

import attrs

from impasto import (
    Artifact,
    ChargeUnknown,
    ContentFiltered,
    File,
    ImpastoError,
    Operation,
    Pending,
    Request,
    Result,
    UnusableResult,
    WireRequest,
    WireResponse,
)
from impasto.files import media_type_of
from impasto.records import Scalar
from impasto.redact import printable
from impasto_pictures.complete import is_complete

from .refusals import refusal

PICTURES = frozenset({"image/png", "image/jpeg", "image/webp"})
KEPT_SECONDS = 24 * 3600.0
RESULTS = "/v2beta/results/"


@attrs.frozen
class Direct:
    """``results``: the path below which a job's result is fetched, None where the answer comes at once."""

    results: str | None = None

    def pack(self, operation: Operation, request: Request) -> WireRequest:
        if request.job is not None:
            return self._poll(request.job)
        fields: dict[str, Scalar] = {}
        files: dict[str, File] = {}
        for name in operation.fields:
            value = getattr(request.params, name)
            if isinstance(value, File):
                files[name] = value
            elif value is not None:
                fields[name] = value
        fields |= request.constants
        headers = {} if self.results is not None else {"accept": "image/*"}
        if request.user is not None and operation.provider.user_header is not None:
            headers[operation.provider.user_header] = request.user
        return WireRequest(
            target=request.target, fields=fields, files=files, headers=headers, max_bytes=operation.max_bytes
        )

    def classify(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        kind = response.media_type
        if response.status == 200 and (kind in PICTURES or kind == "application/json"):
            return None
        if response.status == 202 and self.results is not None and kind == "application/json":
            return None
        if (error := refusal(response)) is not None:
            return error
        shown = printable(kind[:60]) or "no media type"
        return ChargeUnknown(
            f"HTTP {response.status} ({shown}) is not the provider's own answer; whether it was charged is not known",
            status=response.status,
            raw=response.body,
            request_id=request_id(response),
        )

    def unpack(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        if response.media_type != "application/json":
            headers = response.headers
            return _result(response, response.body, headers.get("finish-reason"), headers.get("seed"))
        body = _object(response)
        image = body.get("image")
        if isinstance(image, str):
            return _result(response, _decoded(image, response), body.get("finish_reason"), body.get("seed"))
        job = body.get("id", request.job)
        if self.results is None or not isinstance(job, str) or not job.isalnum():
            raise _unusable("holds neither a picture nor a job's id", response)
        return Pending(id=job, poll=self._poll(job), keeps=KEPT_SECONDS)

    def _poll(self, job: str) -> WireRequest:
        return WireRequest(target=f"{self.results}{job}", method="GET", headers={"accept": "*/*"})


def request_id(response: WireResponse) -> str | None:
    """The provider's id of the exchange, safe to log."""
    return printable(response.request_id) if response.request_id is not None else None


def _result(response: WireResponse, data: bytes, reason: object, seed: object) -> Result:
    media_type = media_type_of(data[:16])
    if media_type not in PICTURES:
        raise _unusable("is no picture", response)
    assert media_type is not None  # noqa: S101 - narrowed by the line above, which mypy does not see
    if not is_complete(data, media_type):
        raise _unusable("holds a picture cut short", response)
    artifact = Artifact(
        data=data,
        media_type=media_type,
        seed=_seed(seed),
        finish_reason=printable(reason) if isinstance(reason, str) else None,
    )
    if reason == "CONTENT_FILTERED":
        error = ContentFiltered(
            "the picture broke the provider's content policy and came back blurred",
            status=response.status,
            name="CONTENT_FILTERED",
            request_id=request_id(response),
        )
        error.artifacts = (artifact,)
        error.billed = "unknown"
        raise error
    return Result(artifacts=(artifact,), request_id=request_id(response))


def _seed(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if type(value) is int else None


def _object(response: WireResponse) -> Mapping[str, object]:
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        raise _unusable("is damaged JSON", response) from None
    if not isinstance(body, dict):
        raise _unusable("is JSON, but no object", response)
    return body


def _decoded(text: str, response: WireResponse) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _unusable("holds damaged base64", response) from None


def _unusable(what: str, response: WireResponse) -> UnusableResult:
    return UnusableResult(
        f"the answer {what}; it was paid for, and its {len(response.body):,} bytes are kept in .raw",
        raw=response.body,
        media_type=response.media_type,
        request_id=request_id(response),
    )


direct = Direct()
asynchronous = Direct(RESULTS)
