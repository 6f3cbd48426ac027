"""What an error means for a picture: whether it is final, may have been charged, or is taken up by the next run."""

from __future__ import annotations

import time

from impasto import (
    BadRequest,
    ChargeUnknown,
    ClientClosedError,
    ConfigError,
    ContentFiltered,
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

from .tasks import Outcome, Standing, Unit

_SET_UP = (ConfigError, RegistryError, ClientClosedError)
STOPPING = (Unauthorized, PaymentRequired, SpendLimitExceeded, StorageError, *_SET_UP)
"""Errors that every further image would meet too."""

_AGAIN = (NotSent, RateLimited, ProviderFault, *STOPPING)
"""Refusals that say nothing of the picture itself."""

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


def code_of(error: ImpastoError, state: Standing) -> str:
    """The word that errors.jsonl has for an error."""
    if state == "ambiguous":
        return "charge_unknown"
    return next((code for kind, code in _CODES if isinstance(error, kind)), "misconfigured")


def made(unit: Unit, result: Result) -> Outcome:
    """A picture that came."""
    return Outcome(
        id=unit.id,
        index=unit.index,
        model=unit.model,
        state="done",
        artifact=result.artifacts[0],
        cost=result.cost or unit.cost,
        request_id=result.request_id,
        warnings=(*unit.warnings, *result.warnings),
    )


def failed(unit: Unit, error: ImpastoError) -> Outcome:
    """A picture that did not come."""
    state = _standing(error, is_kept=unit.expires is None or time.time() < unit.expires)
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


def _standing(error: ImpastoError, *, is_kept: bool) -> Standing:
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
