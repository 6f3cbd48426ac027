"""The vendor's refusals, in its own JSON form. Nothing else counts as one: a proxy's page proves nothing."""

from __future__ import annotations

from impasto import (
    ContentFiltered,
    RateLimited,
    ResponseError,
    WireResponse,
)
from impasto.dialects import STATUSES, Advice, Refusals
from impasto.ext import retry_after

_ADVICE: Advice = {
    401: "the key was not accepted: check STABILITY_API_KEY or api_key",
    402: "the account has too few credits",
    429: "too many requests: the vendor allows 150 in 10 seconds",
}
_find = Refusals(
    {**STATUSES, "content_moderation": ContentFiltered},
    message=("errors[]", "message"),  # v2, v1
    code="name",
    required=("id", "name"),
    advice=_ADVICE,
).find

LOCKED_SECONDS = 60.0
"""Seconds for which the vendor locks a key that passed its limit."""


def refusal(response: WireResponse) -> ResponseError | None:
    """Return the error for a complete answer in the vendor's own form, or None."""
    error = _find(response)
    if isinstance(error, RateLimited):
        error.retry_after = lock_out(response)
    return error


def lock_out(response: WireResponse) -> float:
    """Return the seconds for which a 429 locks the key: the answer's own, or the documented ones."""
    seconds = retry_after(response.headers)
    return LOCKED_SECONDS if seconds is None else seconds
