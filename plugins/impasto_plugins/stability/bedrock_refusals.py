"""Bedrock's refusals: known by their code, never by their status alone."""

from __future__ import annotations

import json

from impasto import (
    BadRequest,
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
"""The names that AWS's services have for a throttle; botocore's retry rules list them."""

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
"""For codes that nobody has told of: below 500 a code means that nothing was made, but for 408, 424 and 429."""

_ADVICE = {
    "ExpiredTokenException": "the session token is out of date",
    "InvalidClientTokenId": "AWS does not know the access key id",
    "InvalidSignatureException": "check the secret access key and this machine's clock",
    "RequestExpired": "check this machine's clock",
    "UnrecognizedClientException": "AWS does not know the access key id, the session token or the bearer token",
}
_MOST_CODE = 80


def refusal(response: WireResponse) -> ResponseError | None:
    """The error that an answer with a code of Bedrock's own is, or None."""
    code = code_of(response)
    kind = _CLASSES.get(code) or (_BY_STATUS.get(response.status) if code else None)
    message = _message(response.body) if kind is not None and response.status >= 400 else None
    if kind is None or message is None:
        return None
    if kind is Unauthorized:
        message = ""  # AWS may repeat the token or the header in it
    said = "; ".join(part for part in (message, _ADVICE.get(code)) if part) or "no reason given"
    error = kind(
        f"{code} (HTTP {response.status}): {said}",
        status=response.status,
        name=code,
        messages=(message,) if message else (),
        request_id=response.request_id,
    )
    if isinstance(error, RateLimited):
        error.retry_after, error.per_model = retry_after(response.headers), True  # AWS's quotas are a model's
    return error


def code_of(response: WireResponse) -> str:
    """Bedrock's name for what went wrong, safe to log; empty where the answer is not Bedrock's own.

    AWS gives it in a header or in the body (Smithy, restJson1), maybe with a namespace before it and a URL behind it.
    A proxy's body may have such a member too: there a name that is not AWS's counts for nothing.
    """
    if code := _bare(response.headers.get("x-amzn-errortype", "")):
        return code
    body = _object(response.body)
    named = (
        [_bare(name) for key in ("__type", "code", "Code") if isinstance(name := body.get(key), str)] if body else []
    )
    return next((name for name in named if name in _CLASSES), "")


def _bare(name: str) -> str:
    """Return the name of an error without its namespace and its URL."""
    return printable(name.partition(":")[0].rpartition("#")[2].strip()[:_MOST_CODE])


def _object(body: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _message(body: bytes) -> str | None:
    """The message, which may itself be the text of a JSON object with a ``detail``; None where the body is no JSON."""
    told = _object(body)
    text = told.get("message", told.get("Message", "")) if told is not None else None
    if not isinstance(text, str):
        return None
    try:
        inner = json.loads(text)
    except (ValueError, RecursionError):
        return printable(text)
    detail = inner.get("detail") if isinstance(inner, dict) else None
    return printable(detail if isinstance(detail, str) else text)
