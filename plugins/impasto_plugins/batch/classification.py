"""The meaning of an error for an image: final, possibly charged, or retried by the next run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import attrs

from impasto import (
    BadRequest,
    ChargeUnknown,
    ClientClosedError,
    ConfigError,
    ContentFiltered,
    Cost,
    ImpastoError,
    InvalidRequest,
    NotFound,
    NotSent,
    PaymentRequired,
    PermissionDenied,
    PollExpired,
    ProviderFault,
    RateLimited,
    RegistryError,
    Result,
    SpendLimitExceeded,
    StorageError,
    TooLarge,
    Unauthorized,
    Unprocessable,
    UnusableResult,
)

from .tasks import ImageTask, Outcome, OutcomeState

_SET_UP = (ConfigError, RegistryError, ClientClosedError)
STOPPING = (Unauthorized, PaymentRequired, SpendLimitExceeded, StorageError, *_SET_UP)
"""Errors that every further image would meet too."""

_AGAIN = (NotSent, RateLimited, ProviderFault, *STOPPING)
"""Refusals that say nothing about the image itself."""

_CODES: tuple[tuple[type[ImpastoError], str], ...] = (
    (ContentFiltered, "moderation_blocked"),
    (UnusableResult, "unusable_result"),
    (PollExpired, "result_expired"),
    (ChargeUnknown, "charge_unknown"),
    (InvalidRequest, "invalid_request"),
    (NotSent, "not_sent"),
    (RateLimited, "rate_limit_exceeded"),
    (Unauthorized, "unauthorized"),
    (PaymentRequired, "payment_required"),
    (PermissionDenied, "permission_denied"),
    (NotFound, "not_found"),
    (TooLarge, "request_too_large"),
    (BadRequest, "provider_refused"),
    (Unprocessable, "provider_refused"),
    (ProviderFault, "provider_fault"),
    (SpendLimitExceeded, "spend_limit_exceeded"),
    (StorageError, "storage_error"),
)


def code_of(error: ImpastoError, state: OutcomeState) -> str:
    """Return the ``code`` of errors.jsonl for an error."""
    if state == "ambiguous":
        return "charge_unknown"
    return next((code for kind, code in _CODES if isinstance(error, kind)), "misconfigured")


def outcome_of_result(unit: ImageTask, result: Result) -> Outcome:
    """Return the outcome of a result: its first image."""
    missing = tuple(f"another image of the same answer did not come: {each.error.message}" for each in result.errors)
    charged = sum(each.error.billed != "no" for each in result.errors)
    cost = _cost_per_image(result) or unit.cost
    return Outcome(
        id=unit.id,
        index=unit.index,
        model=unit.model,
        state="done",
        artifact=result.artifacts[0],
        cost=cost.times(1 + charged) if cost is not None and charged else cost,
        request_id=result.request_id,
        warnings=(*unit.warnings, *result.warnings, *missing),
        errors=tuple(each.error for each in result.errors),
    )


def extras(unit: ImageTask, result: Result, first: Callable[[], int]) -> Iterator[tuple[ImageTask, Outcome]]:
    """Yield the further images of a result as tasks of their own. ``first`` returns the first free index."""
    more = result.artifacts[1:]
    cost = _cost_per_image(result)
    for index, artifact in enumerate(more, first() if more else 0):
        extra = attrs.evolve(unit, index=index, extra=unit.index, job=None)
        yield (
            extra,
            Outcome(
                id=unit.id,
                index=index,
                model=unit.model,
                state="done",
                artifact=artifact,
                cost=cost,
                request_id=result.request_id,
                warnings=result.warnings,
            ),
        )


def _cost_per_image(result: Result) -> Cost | None:
    """Return the cost of each of a result's images."""
    count = len(result.artifacts)
    if result.cost is None or count == 1:
        return result.cost
    usd, credits = result.cost.usd / count, result.cost.credits
    return attrs.evolve(result.cost, usd=round(usd, 10), credits=credits and round(credits / count, 10))


def outcome_of_error(unit: ImageTask, error: ImpastoError) -> Outcome:
    """Return the outcome of an image that did not come."""
    state = _state_of_error(error, is_kept=unit.expires is None or time.time() < unit.expires)
    return Outcome(
        id=unit.id,
        index=unit.index,
        model=unit.model,
        state=state,
        error=error,
        cost=None if error.billed == "no" else unit.cost,
        request_id=error.request_id,
        warnings=unit.warnings,
        again=state == "refused" and isinstance(error, _AGAIN),
    )


def _state_of_error(error: ImpastoError, *, is_kept: bool) -> OutcomeState:
    match error:
        case ContentFiltered():
            return "filtered"
        case UnusableResult():
            return "unusable"
        case PollExpired():
            return "expired"
        case _ if error.billed == "no":
            return "refused"
        case _ if error.id is None:
            return "ambiguous"
        case NotFound():
            return "ambiguous" if is_kept else "expired"
        case BadRequest() | Unprocessable() | PermissionDenied() | TooLarge():
            return "ambiguous"  # the provider says that nothing will come, and not whether it was charged
        case ChargeUnknown() if error.status == 404:
            return "ambiguous"
        case _:
            return "pending"
