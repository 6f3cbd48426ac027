"""The vendor's refusals, in its own JSON form. Nothing else counts as one: a proxy's page proves nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

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
from impasto.ext import printable

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
_MOST_MESSAGES = 10


def refusal(response: WireResponse) -> ResponseError | None:
    """The error that a complete answer of the vendor's own form is, or None."""
    kind = _CLASSES.get(response.status)
    told = _told(response) if kind is not None and response.media_type == "application/json" else None
    if kind is None or told is None:
        return None
    name, messages = told
    if response.status == 401:
        messages = ()  # the vendor may repeat the rejected key in it
    if name == "content_moderation":
        kind = ContentFiltered
    said = "; ".join(messages) or _ADVICE.get(response.status, "no reason given")
    error = kind(
        f"{name} (HTTP {response.status}): {said}",
        status=response.status,
        name=name,
        messages=messages,
        request_id=response.request_id,
    )
    if isinstance(error, RateLimited):
        error.retry_after = retry_after(response.headers)
    return error


def _told(response: WireResponse) -> tuple[str, tuple[str, ...]] | None:
    """Name and messages of ``{id, name, errors}`` (v2) or ``{id, name, message}`` (v1)."""
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        return None
    match body:
        case {"id": str(), "name": str(name), "errors": list(errors)}:
            return printable(name), tuple(printable(e) for e in errors[:_MOST_MESSAGES] if isinstance(e, str))
        case {"id": str(), "name": str(name), "message": str(message)}:
            return printable(name), (printable(message),)
        case _:
            return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for: a number or a date; None where it makes no sense."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text):
        return float(text)
    until, now = _timestamp(text), _timestamp(headers.get("date", ""))
    if until is None:
        return None
    return max(until - (time.time() if now is None else now), 0.0)


def _timestamp(date: str) -> float | None:
    """Seconds since 1970 of an HTTP date."""
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment.replace(tzinfo=UTC).timestamp() if moment.tzinfo is None else moment.timestamp()
