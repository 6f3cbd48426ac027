"""The meaning of an error for an image: final, possibly charged, or retried by the next run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import attrs

from impasto import (
    Artifact,
    BadRequest,
    ChargeUnknown,
    ClientClosedError,
    ConfigError,
    ContentFiltered,
    Cost,
    ImpastoError,
    InvalidRequest,
    JobFailed,
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


def outcomes_of_result(unit: ImageTask, result: Result) -> Iterator[tuple[ImageTask, Outcome]]:
    """Yield the images of a request, each with what came in its place of the answer."""
    if unit.requested == 1:
        yield unit, outcome_of_result(unit, result)
        return
    errors, strays = dict[int, ImpastoError](), list[ImpastoError]()  # strays: indices that no image has, or twice
    for each in result.errors:
        if each.index in errors or each.index >= unit.requested:
            strays.append(each.error)
        else:
            errors[each.index] = each.error
    came = iter(result.artifacts)
    in_place = [None if place in errors else next(came, None) for place in range(unit.requested)]
    one = attrs.evolve(result, errors=(), usage=None, cost=_cost_per_image(result))
    usage = result.usage
    for image in unit.images:
        if (artifact := in_place[image.place]) is None:
            yield image, outcome_of_error(image, errors.get(image.place) or strays.pop(0))
        else:
            yield image, outcome_of_result(image, attrs.evolve(one, artifacts=(artifact,), usage=usage))
            usage = None


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
        usage=result.usage,
        errors=tuple(each.error for each in result.errors),
    )


def extras(unit: ImageTask, result: Result, first: Callable[[], int]) -> Iterator[tuple[ImageTask, Outcome]]:
    """Yield images beyond those requested as tasks of their own. ``first`` returns the first free index."""
    more = surplus(unit, result)
    cost = _cost_per_image(result)
    for index, artifact in enumerate(more, first() if more else 0):
        extra = attrs.evolve(unit, index=index, extra=unit.index, job=None, others=())
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


def surplus(unit: ImageTask, result: Result) -> tuple[Artifact, ...]:
    """Return the images of an answer beyond those that its request asked for."""
    if unit.requested == 1:
        return result.artifacts[1:]
    failed = {each.index for each in result.errors if each.index < unit.requested}
    return result.artifacts[unit.requested - len(failed) :]


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
        case BadRequest() | Unprocessable() | PermissionDenied() | TooLarge() | JobFailed():
            return "ambiguous"  # the provider says that nothing will come, and not whether it was charged
        case ChargeUnknown() if error.status == 404:
            return "ambiguous"
        case _:
            return "pending"
