"""Bedrock's refusals, recognized by their code and never by their status alone."""

from __future__ import annotations

import json

from impasto import (
    BadRequest,
    ChargeUnknown,
    ImpastoError,
    NotFound,
    PermissionDenied,
    ProviderFault,
    RateLimited,
    ResponseError,
    TooLarge,
    Unauthorized,
    WireResponse,
)
from impasto.ext import printable, retry_after

_THROTTLES = (
    "ThrottlingException",
    "Throttling",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "LimitExceededException",
    "SlowDown",
)
"""AWS's codes for a throttle, as in botocore's retry rules."""

_CLASSES: dict[str, type[ResponseError]] = {
    "ValidationException": BadRequest,
    "ServiceQuotaExceededException": PermissionDenied,
    "AccessDeniedException": PermissionDenied,
    "ExpiredTokenException": Unauthorized,
    "IncompleteSignature": Unauthorized,
    "IncompleteSignatureException": Unauthorized,
    "InvalidClientTokenId": Unauthorized,
    "InvalidSignatureException": Unauthorized,
    "MissingAuthenticationTokenException": Unauthorized,
    "RequestExpired": Unauthorized,
    "UnrecognizedClientException": Unauthorized,
    "ResourceNotFoundException": NotFound,
    "ModelNotReadyException": RateLimited,
    **dict.fromkeys(_THROTTLES, RateLimited),
    "InternalServerException": ProviderFault,
    "ServiceUnavailableException": ProviderFault,
}
_BY_STATUS: dict[int, type[ResponseError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: PermissionDenied,
    404: NotFound,
    413: TooLarge,
}
"""For unknown codes: below 500 a code means that nothing was generated, except for 408, 424 and 429."""

_ADVICE = {
    "ExpiredTokenException": "the session token is out of date",
    "InvalidClientTokenId": "AWS does not know the access key id",
    "InvalidSignatureException": "check the secret access key and this machine's clock",
    "RequestExpired": "check this machine's clock",
    "UnrecognizedClientException": "AWS does not know the access key id, the session token or the bearer token",
}
_MAX_CODE_LENGTH = 80


def refusal(response: WireResponse) -> ImpastoError:
    """Return the error for an answer with one of Bedrock's codes, or ChargeUnknown: for any other, and 408 and 424."""
    code = _code_of(response)
    kind = _CLASSES.get(code) or (_BY_STATUS.get(response.status) if code else None)
    message = _message(response.body) if kind is not None and response.status >= 400 else None
    if kind is None or message is None:
        media_type = printable(response.media_type[:60]) or "no media type"
        what = code or f"{media_type}, not the provider's own answer"
        return ChargeUnknown(
            f"HTTP {response.status} ({what}): it may have been charged",
            status=response.status,
            raw=response.body,
            request_id=response.request_id,
        )
    if kind is Unauthorized:
        message = ""  # AWS may repeat the token or the header in it
    explanation = "; ".join(part for part in (message, _ADVICE.get(code)) if part) or "no reason given"
    error = kind(
        f"{code} (HTTP {response.status}): {explanation}",
        status=response.status,
        name=code,
        messages=(message,) if message else (),
        request_id=response.request_id,
    )
    if isinstance(error, RateLimited):
        error.retry_after, error.per_model = retry_after(response.headers), True  # AWS's quotas are a model's
    return error


def _code_of(response: WireResponse) -> str:
    """Return Bedrock's error code, safe to log, or an empty text if the answer is not Bedrock's own."""
    if code := _bare(response.headers.get("x-amzn-errortype", "")):
        return code
    body = _object(response.body)
    candidates = (
        [_bare(name) for key in ("__type", "code", "Code") if isinstance(name := body.get(key), str)] if body else []
    )
    return next((name for name in candidates if name in _CLASSES), "")


def _bare(name: str) -> str:
    """Return the name of an error without its namespace and its URL."""
    return printable(name.partition(":")[0].rpartition("#")[2].strip()[:_MAX_CODE_LENGTH])


def _object(body: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _message(body: bytes) -> str | None:
    """Return the message, which may be JSON text with a ``detail``; None if the body is not JSON."""
    parsed = _object(body)
    text = parsed.get("message", parsed.get("Message", "")) if parsed is not None else None
    if not isinstance(text, str):
        return None
    try:
        inner = json.loads(text)
    except (ValueError, RecursionError):
        return printable(text)
    detail = inner.get("detail") if isinstance(inner, dict) else None
    return printable(detail if isinstance(detail, str) else text)
