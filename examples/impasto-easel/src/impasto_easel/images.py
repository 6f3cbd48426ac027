"""Easel's wire: JSON in; a picture in base64, or its address on Easel's own host, out."""

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
from impasto.ext import media_type_of, printable
from impasto_plugins.images.completeness import is_complete

_PICTURE = re.compile(r"/v1/files/[A-Za-z0-9_-]{16,128}\.(png|jpeg|webp)")
"""The path of a picture; it is the id of a job too, by which the picture is fetched later."""

KEPT_SECONDS = 3600.0

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
    """Requests and refusals. Plain functions: they can be tested without a network."""

    def transform_request(self, operation: Operation, request: Request) -> WireRequest:
        """What was given goes out and nothing else; for a job, the GET that fetches its picture."""
        if request.job is not None:
            if _PICTURE.fullmatch(request.job) is None:
                raise InvalidRequest([Problem("id", "must be the path of a picture, such as /v1/files/....png")])
            return _get(request.job)
        given = attrs.asdict(request.params, filter=lambda _, value: value is not None)
        return WireRequest(target=request.target, fields={**request.constants, **given}, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        """The failure that an answer is, or None. What Easel did not say itself is never taken for free."""
        if response.status == 200 and (_is_picture(response) or response.media_type == "application/json"):
            return None
        kind, said = _refusal(response)
        if kind is None or _STATUSES.get(response.status) is not kind:
            return ChargeUnknown(
                f"HTTP {response.status} is not Easel's own answer; whether it was charged is not known",
                status=response.status,
                raw=response.body,
                request_id=response.request_id,
            )
        return kind(said, status=response.status, request_id=response.request_id)

    def is_artifact_body(self, operation: Operation, response: WireResponse) -> bool:
        """A fetched picture is the artifact itself, and need not be held in memory."""
        return response.status == 200 and _is_picture(response)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        """A picture that was fetched."""
        return _result(response, response.file or response.body, None)


@attrs.frozen(kw_only=True, eq=False)
class Images(Operation):
    """A model whose answer may be an address: that is compared with the account's, so a dialect is not enough."""

    @hookimpl
    def normalize_response(self, request: Request, response: WireResponse, account: Account) -> Result | Pending:
        """The picture, or where it is fetched. What was paid for and holds neither is kept in the error."""
        if _is_picture(response):
            return self.dialect.normalize_response(self, request, response)
        try:
            body = json.loads(response.body)
            [told] = body["data"]
            address, encoded = told.get("url"), told.get("b64_json")
            data = base64.b64decode(encoded, validate=True) if encoded is not None else None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _unusable(response, "holds no picture") from None
        if data is not None:
            return _result(response, data, told.get("seed"))
        origin, path = account.base_url, address if isinstance(address, str) else ""
        path = path.removeprefix(origin)
        if _PICTURE.fullmatch(path) is None:
            raise _unusable(response, f"leads elsewhere than to a picture of {origin}: nothing was fetched")
        return Pending(id=path, poll=_get(path), result_ttl=KEPT_SECONDS, is_ready=True)


def _get(path: str) -> WireRequest:
    return WireRequest(target=path, method="GET", headers={"accept": "image/*"})


def _is_picture(response: WireResponse) -> bool:
    return response.media_type.startswith("image/")


def _result(response: WireResponse, data: bytes | File, seed: object) -> Result:
    media_type = media_type_of(data[:16]) if isinstance(data, bytes) else data.media_type
    if media_type is None or not is_complete(data, media_type):
        raise _unusable(response, "holds no whole picture")
    artifact = Artifact(
        data=data if isinstance(data, bytes) else b"",
        media_type=media_type,
        seed=seed if type(seed) is int else None,
        file=data if isinstance(data, File) else None,
    )
    return Result(artifacts=(artifact,), request_id=response.request_id)


def _refusal(response: WireResponse) -> tuple[type[ResponseError] | None, str]:
    """Easel's own refusal, {"error": {"code": ..., "message": ...}}: its kind, and its words."""
    try:
        error = json.loads(response.body)["error"]
        code, message = error["code"], error["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None, ""
    if not isinstance(code, str) or not isinstance(message, str):
        return None, ""
    return _REFUSALS.get(code), printable(message)


def _unusable(response: WireResponse, what: str) -> UnusableResult:
    return UnusableResult(
        f"the answer was paid for and {what}; its bytes are kept in .raw",
        raw=response.body,
        media_type=response.media_type,
        request_id=response.request_id,
    )


dialect = Dialect()
