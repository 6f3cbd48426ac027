"""The vendor's refusals, in its own JSON form. Nothing else counts as one: a proxy's page proves nothing."""

from __future__ import annotations

import json

from impasto import (
    BadRequest,
    ContentFiltered,
    NotFound,
    PaymentRequired,
    PermissionDenied,
    ProviderFault,
    RateLimited,
    ResponseError,
    TooLarge,
    Unauthorized,
    Unprocessable,
    WireResponse,
)
from impasto.ext import printable, retry_after

_CLASSES: dict[int, type[ResponseError]] = {
    400: BadRequest,
    401: Unauthorized,
    402: PaymentRequired,
    403: PermissionDenied,
    404: NotFound,
    413: TooLarge,
    422: Unprocessable,
    429: RateLimited,
    500: ProviderFault,
    503: ProviderFault,
}
_ADVICE = {
    401: "the key was not accepted: check STABILITY_API_KEY or api_key",
    402: "the account has too few credits",
    429: "too many requests: the vendor allows 150 in 10 seconds",
}
_MAX_MESSAGES = 10

LOCKED_SECONDS = 60.0
"""Seconds for which the vendor locks a key that passed its limit."""


def refusal(response: WireResponse) -> ResponseError | None:
    """Return the error for a complete answer in the vendor's own form, or None."""
    kind = _CLASSES.get(response.status)
    parsed = _parse(response) if kind is not None and response.media_type == "application/json" else None
    if kind is None or parsed is None:
        return None
    name, messages = parsed
    if response.status == 401:
        messages = ()  # the vendor may repeat the rejected key in it
    if name == "content_moderation":
        kind = ContentFiltered
    explanation = "; ".join(messages) or _ADVICE.get(response.status, "no reason given")
    error = kind(
        f"{name} (HTTP {response.status}): {explanation}",
        status=response.status,
        name=name,
        messages=messages,
        request_id=response.request_id,
    )
    if isinstance(error, RateLimited):
        error.retry_after = lock_out(response)
    return error


def lock_out(response: WireResponse) -> float:
    """Return the seconds for which a 429 locks the key: the answer's own, or the documented ones."""
    seconds = retry_after(response.headers)
    return LOCKED_SECONDS if seconds is None else seconds


def _parse(response: WireResponse) -> tuple[str, tuple[str, ...]] | None:
    """Return name and messages of ``{id, name, errors}`` (v2) or ``{id, name, message}`` (v1), or None."""
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        return None
    match body:
        case {"id": str(), "name": str(name), "errors": list(errors)}:
            return printable(name), tuple(printable(e) for e in errors[:_MAX_MESSAGES] if isinstance(e, str))
        case {"id": str(), "name": str(name), "message": str(message)}:
            return printable(name), (printable(message),)
        case _:
            return None
