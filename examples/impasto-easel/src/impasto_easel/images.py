"""Easel's dialect: requests in JSON, answers with an image in base64 or its address on Easel's host."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping

import attrs

from impasto import (
    Account,
    Artifact,
    BadRequest,
    ChargeUnknown,
    ContentFiltered,
    File,
    ImpastoError,
    InvalidRequest,
    NotFound,
    Operation,
    PaymentRequired,
    Pending,
    Problem,
    ProviderFault,
    RateLimited,
    Request,
    ResponseError,
    Result,
    Unauthorized,
    UnusableResult,
    WireRequest,
    WireResponse,
    hookimpl,
)
from impasto.ext import media_type_of, printable, retry_after
from impasto_plugins.images.completeness import is_complete

_IMAGE_PATH = re.compile(r"/v1/files/[A-Za-z0-9_-]{16,128}\.(png|jpeg|webp)")
"""The path of an image. It is also the id of the job that fetches the image later."""

RESULT_SECONDS = 3600.0
"""Seconds for which Easel serves an image."""

_REFUSALS: Mapping[str, type[ResponseError]] = {
    "invalid_request_error": BadRequest,
    "invalid_api_key": Unauthorized,
    "insufficient_quota": PaymentRequired,
    "moderation_blocked": ContentFiltered,
    "not_found": NotFound,
    "rate_limit_exceeded": RateLimited,
    "server_error": ProviderFault,
}
_STATUSES = {400: BadRequest, 401: Unauthorized, 402: PaymentRequired, 403: ContentFiltered, 404: NotFound}
_STATUSES |= {429: RateLimited, 500: ProviderFault}


class Dialect:
    """Conversion of requests and refusals. It can be tested without a network."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        """Return the request with the parameters that the caller gave; for a job, the GET that fetches its image."""
        if request.job is not None:
            if _IMAGE_PATH.fullmatch(request.job) is None:
                raise InvalidRequest([Problem("id", "must be the path of an image, such as /v1/files/....png")])
            return _get(request.job)
        fields = attrs.asdict(request.params, filter=lambda _, value: value is not None)
        return WireRequest(target=request.target, fields={**request.constants, **fields}, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """Return the error that an answer means, or None.

        Only an answer in Easel's own form proves that nothing was charged.
        """
        if response.status == 200 and (_is_image(response) or response.media_type == "application/json"):
            return None
        kind, message = _refusal(response)
        if kind is None or _STATUSES.get(response.status) is not kind:
            return ChargeUnknown(
                f"HTTP {response.status} is not Easel's own answer; the call may have been charged",
                status=response.status,
                raw=response.body,
                request_id=response.request_id,
            )
        error = kind(message, status=response.status, request_id=response.request_id)
        if isinstance(error, RateLimited):
            error.retry_after = retry_after(response.headers)
        return error

    def is_artifact_body(self, operation: Operation, response: WireResponse) -> bool:
        """Return True for a fetched image: it is the artifact itself and may be stored on disk."""
        return response.status == 200 and _is_image(response)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        """Return the result of a fetched image."""
        return _result(response, response.file or response.body, None)


@attrs.frozen(kw_only=True, eq=False)
class Images(Operation):
    """A model whose answer may be an address. A dialect is not enough, since the account's address must match."""

    @hookimpl
    def normalize_response(self, request: Request, response: WireResponse, account: Account) -> Result | Pending:
        """Return the image, or the request that fetches it. Raises UnusableResult, which has the answer's bytes."""
        if _is_image(response):
            return self.dialect.normalize_response(self, request, response)
        try:
            body = json.loads(response.body)
            [entry] = body["data"]
            address, encoded = entry.get("url"), entry.get("b64_json")
            data = base64.b64decode(encoded, validate=True) if encoded is not None else None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _unusable(response, "has no image") from None
        if data is not None:
            return _result(response, data, entry.get("seed"))
        origin, path = account.base_url, address if isinstance(address, str) else ""
        path = path.removeprefix(origin)
        if _IMAGE_PATH.fullmatch(path) is None:
            raise _unusable(response, f"has an address that is not an image of {origin}: nothing was fetched")
        return Pending(id=path, poll=_get(path), result_ttl=RESULT_SECONDS, is_ready=True)


def _get(path: str) -> WireRequest:
    return WireRequest(target=path, method="GET", headers={"accept": "image/*"})


def _is_image(response: WireResponse) -> bool:
    return response.media_type.startswith("image/")


def _result(response: WireResponse, data: bytes | File, seed: object) -> Result:
    media_type = media_type_of(data[:16]) if isinstance(data, bytes) else data.media_type
    if media_type is None or not is_complete(data, media_type):
        raise _unusable(response, "has no complete image")
    artifact = Artifact(
        data=data if isinstance(data, bytes) else b"",
        media_type=media_type,
        seed=seed if type(seed) is int else None,
        file=data if isinstance(data, File) else None,
    )
    return Result(artifacts=(artifact,), request_id=response.request_id)


def _refusal(response: WireResponse) -> tuple[type[ResponseError] | None, str]:
    """Return the kind and the message of a refusal in Easel's form, {"error": {"code": ..., "message": ...}}."""
    try:
        error = json.loads(response.body)["error"]
        code, message = error["code"], error["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None, ""
    if not isinstance(code, str) or not isinstance(message, str):
        return None, ""
    return _REFUSALS.get(code), printable(message)


def _unusable(response: WireResponse, problem: str) -> UnusableResult:
    return UnusableResult(
        f"the answer was charged and {problem}; its bytes are in .raw",
        raw=response.body,
        media_type=response.media_type,
        request_id=response.request_id,
    )


dialect = Dialect()
