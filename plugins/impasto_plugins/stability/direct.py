"""The dialect of api.stability.ai (v2beta): multipart out; bytes, or a job's id, back."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from impasto import (
    Account,
    ImpastoError,
    InvalidRequest,
    Operation,
    Pending,
    Problem,
    Request,
    Result,
    WireRequest,
    WireResponse,
)
from impasto.dialects import charge_unknown, decode_base64, json_object, split_files, unusable
from impasto.ext import Makes

from .answers import FILTERED, KINDS, result
from .refusals import lock_out, refusal

RESULT_SECONDS = 24 * 3600.0
RESULTS = "/v2beta/results/"
AUDIO_RESULTS = "/v2beta/audio/results/"
POLLED: Mapping[Makes, str] = {"image": "*/*", "audio": "audio/*"}
"""The ``Accept`` header of polls, which differs from that of the operation."""

_MAX_USER_LENGTH = 256
_DAMAGED = object()
_JOB = re.compile(r"[A-Za-z0-9_-]{1,200}")
"""Characters that a job's id may have: it becomes part of a URL."""
_WHOLE_JOB = re.compile(r"[A-Za-z0-9]{64}")
"""The form of the vendor's ids. An id that a caller passes must have it."""


@attrs.frozen
class DirectDialect:
    """The dialect. ``results``: the path below which a job's result is fetched, or None if the answer comes at once."""

    results: str | None = None

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        """Return the form of a call, or the GET that fetches the result of ``request.job``."""
        if request.job is not None:
            return self._resume(operation, request)
        fields, files = split_files(operation, request.params)
        fields |= request.constants
        accept = KINDS[operation.output].accept if self.results is None else None
        headers = {"accept": accept} if accept is not None else {}
        if request.user is not None and operation.provider.user_header is not None:
            headers[operation.provider.user_header] = _check_user(request.user)
        return WireRequest(
            target=request.target, fields=fields, files=files, headers=headers, max_bytes=operation.max_bytes
        )

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """Return the vendor's refusal, ChargeUnknown for an answer of somebody else, or None for a success."""
        kind = response.media_type
        if response.status == 200 and (kind in KINDS[operation.output].media_types or kind == "application/json"):
            return None
        if response.status == 202 and self.results is not None and kind == "application/json":
            return None
        if (error := refusal(response)) is not None:
            return error
        unknown = charge_unknown(response)
        unknown.pause = lock_out(response) if response.status == 429 else 0.0  # a proxy's page: the key may be locked
        return unknown

    def is_artifact_body(self, operation: Operation, response: WireResponse) -> bool:
        """Return True for an artifact that was not blurred: a blurred one is an error, which needs its bytes."""
        filtered = response.headers.get("finish-reason") == FILTERED
        is_artifact = response.media_type in KINDS[operation.output].media_types
        return response.status == 200 and is_artifact and not filtered

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        """Return the artifact of an answer in bytes or in JSON, or the job that the answer names."""
        kind = KINDS[operation.output]
        if response.media_type != "application/json":
            headers, data = response.headers, response.file or response.body
            return result(kind, response, data, headers.get("finish-reason"), headers.get("seed"))
        body = json_object(response)
        encoded = body.get(kind.key) if kind.key is not None else None
        if isinstance(encoded, str):
            return result(kind, response, _decode(encoded, response), body.get("finish_reason"), body.get("seed"))
        job = body.get("id", request.job)
        if self.results is None or not isinstance(job, str) or _JOB.fullmatch(job) is None:
            raise unusable(f"has neither {kind.noun} nor job id", response)
        return Pending(id=job, poll=self._poll(operation, job), result_ttl=RESULT_SECONDS)

    def _resume(self, operation: Operation, request: Request) -> WireRequest:
        if self.results is None:
            raise InvalidRequest([Problem("id", f"{request.operation} answers at once: it has no jobs to resume")])
        job = request.job
        if not isinstance(job, str) or _WHOLE_JOB.fullmatch(job) is None:
            raise InvalidRequest([Problem("id", "must be a job's id: 64 letters and digits")])
        return self._poll(operation, job)

    def _poll(self, operation: Operation, job: str) -> WireRequest:
        accept = POLLED.get(operation.output, "*/*")
        return WireRequest(target=f"{self.results}{job}", method="GET", headers={"accept": accept})


def _check_user(user: str) -> str:
    if not user.isascii() or not user.isprintable() or not 1 <= len(user) <= _MAX_USER_LENGTH:
        raise InvalidRequest([Problem("user", f"must be 1 to {_MAX_USER_LENGTH} printable ASCII characters")])
    return str.__str__(user)  # an enum's member becomes its text, not its name


def _decode(text: str, response: WireResponse) -> bytes:
    try:
        return decode_base64(text)
    except ValueError:
        raise unusable("has invalid base64", response) from None


direct = DirectDialect()
asynchronous = DirectDialect(RESULTS)
asynchronous_audio = DirectDialect(AUDIO_RESULTS)
