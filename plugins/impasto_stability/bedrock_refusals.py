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
    Unauthorized,
    WireResponse,
)
from impasto.redact import printable

from .answers import request_id
from .refusals import retry_after

_CLASSES: dict[str, type[ResponseError]] = {
    "ValidationException": BadRequest,
    "ServiceQuotaExceededException": PermissionDenied,
    "AccessDeniedException": PermissionDenied,
    "ExpiredTokenException": Unauthorized,
    "IncompleteSignature": Unauthorized,
    "IncompleteSignatureException": Unauthorized,
    "InvalidClientTokenId": Unauthorized,
    "InvalidSignatureException": Unauthorized,
    "RequestExpired": Unauthorized,
    "UnrecognizedClientException": Unauthorized,
    "ResourceNotFoundException": NotFound,
    "ThrottlingException": RateLimited,
    "ModelNotReadyException": ProviderFault,
    "InternalServerException": ProviderFault,
    "ServiceUnavailableException": ProviderFault,
}
_ADVICE = {
    "RequestExpired": "check this machine's clock",
    "InvalidSignatureException": "check the secret access key and this machine's clock",
    "ExpiredTokenException": "the session token is out of date",
}


def refusal(response: WireResponse) -> ResponseError | None:
    """The error that an answer with a code of Bedrock's own is, or None."""
    code = response.headers.get("x-amzn-errortype", "").partition(":")[0]
    kind = _CLASSES.get(code)
    if kind is None or response.status < 400:
        return None
    message = _message(response.body)
    if message is None:
        return None
    said = "; ".join(part for part in (message, _ADVICE.get(code)) if part)
    error = kind(
        f"{code} (HTTP {response.status}): {said}",
        status=response.status,
        name=code,
        messages=(message,) if message else (),
        request_id=request_id(response),
    )
    if isinstance(error, RateLimited):
        error.retry_after = retry_after(response.headers)
    return error


def _message(body: bytes) -> str | None:
    """The message, which may itself be the text of a JSON object with a ``detail``; None where the body is no JSON."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    text = told.get("message", told.get("Message", "")) if isinstance(told, dict) else None
    if not isinstance(text, str):
        return None
    try:
        inner = json.loads(text)
    except (ValueError, RecursionError):
        return printable(text)
    detail = inner.get("detail") if isinstance(inner, dict) else None
    return printable(detail if isinstance(detail, str) else text)
