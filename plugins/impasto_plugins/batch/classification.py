"""The meaning of an error for an image: final, possibly charged, or retried by the next run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from operator import add

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
from impasto.ext import printable, without_python_advice

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


def is_unfetched(error: ImpastoError | None) -> bool:
    """Return True if an image was made and charged, and is still to be fetched, which is free."""
    return isinstance(error, ChargeUnknown) and error.billed == "yes" and error.id is not None


def code_of(error: ImpastoError, state: OutcomeState) -> str:
    """Return the ``code`` of an error, in errors.jsonl or in an event."""
    if is_unfetched(error):
        return "not_fetched"
    if state == "ambiguous":
        return "charge_unknown"
    return next((code for kind, code in _CODES if isinstance(error, kind)), "misconfigured")


def message_of(error: ImpastoError) -> str:
    """Return the message of an error in the ledger, and so in errors.jsonl."""
    return printable(without_python_advice(error.message))


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
    shares = CostShares.of(result)
    usage = result.usage if len(unit.images) == unit.requested else None  # an image that came before has it
    for image in unit.images:
        if (artifact := in_place[image.place]) is None:
            yield image, outcome_of_error(image, errors.get(image.place) or strays.pop(0), shares)
        else:
            cost = shares.charged
            one = attrs.evolve(result, artifacts=(artifact,), errors=(), usage=usage, cost=cost, possible_cost=cost)
            yield image, outcome_of_result(image, one)
            usage = None


def outcome_of_result(unit: ImageTask, result: Result) -> Outcome:
    """Return the outcome of a result: its first image."""
    missing = tuple(f"another image of the same answer did not come: {each.error.message}" for each in result.errors)
    shares = CostShares.of(result)
    costs = [shares.charged or unit.cost, *(shares.of_error(each.error, unit.cost) for each in result.errors)]
    summands = [cost for cost in costs if cost is not None]
    return Outcome(
        id=unit.id,
        index=unit.index,
        model=unit.model,
        state="done",
        artifact=result.artifacts[0],
        cost=reduce(add, summands) if summands else None,
        request_id=result.request_id,
        warnings=(*unit.warnings, *result.warnings, *missing),
        usage=result.usage,
        errors=tuple(each.error for each in result.errors),
    )


def extras(unit: ImageTask, result: Result, first: Callable[[], int]) -> Iterator[tuple[ImageTask, Outcome]]:
    """Yield images beyond those requested as tasks of their own. ``first`` returns the first free index."""
    more = surplus(unit, result)
    cost = CostShares.of(result).charged
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


@attrs.frozen
class CostShares:
    """The part of a result's possible cost that each image has, None if it is unknown.

    ``charged``: of an image that came, or failed and was charged; ``possible``: of one that may have been charged.
    """

    charged: Cost | None = None
    possible: Cost | None = None
    own: Mapping[ImpastoError, Cost] = attrs.field(factory=dict[ImpastoError, Cost])
    """The part of each image whose error states a cost."""

    @classmethod
    def of(cls, result: Result) -> CostShares:
        """Return the shares of a result's images: together they are its possible cost."""
        cost, most = result.cost, result.possible_cost or result.cost
        if cost is None or most is None:
            return cls()
        own = dict[ImpastoError, Cost]()
        for error, count in Counter(each.error for each in result.errors).items():
            if error.cost is not None and error.billed != "no":
                own[error] = _part(error.cost, count)
                most = _without(most, error.cost)
                cost = _without(cost, error.cost) if error.billed == "yes" else cost
        billed = [each.error.billed for each in result.errors if each.error not in own]
        charged, unknown = len(result.artifacts) + billed.count("yes"), billed.count("unknown")
        if not unknown:
            return cls(_part(most, charged), own=own)
        return cls(_part(cost, charged), _part(_without(most, cost), unknown), own)

    def of_error(self, error: ImpastoError, price: Cost | None) -> Cost | None:
        """Return the share of a failed image; ``price`` if the cost is unknown, None if it was free."""
        if error.billed == "no":
            return None
        if error in self.own:
            return self.own[error]
        return (self.charged if error.billed == "yes" else self.possible) or price


def _without(cost: Cost, part: Cost) -> Cost:
    usd, credits = max(cost.usd - part.usd, 0.0), cost.credits and max(cost.credits - (part.credits or 0), 0.0)
    return attrs.evolve(cost, usd=usd, credits=credits)


def _part(cost: Cost, count: int) -> Cost:
    # Two digits more than sums have: the shares of 0.04 are 0.04 together.
    credits = cost.credits and round(cost.credits / count, 12)
    return cost if count == 1 else attrs.evolve(cost, usd=round(cost.usd / count, 12), credits=credits)


def outcome_of_error(unit: ImageTask, error: ImpastoError, shares: CostShares = CostShares()) -> Outcome:
    """Return the outcome of an image that did not come. ``shares``: those of the other images' result."""
    state = _state_of_error(error, is_kept=unit.is_kept)
    return Outcome(
        id=unit.id,
        index=unit.index,
        model=unit.model,
        state=state,
        error=error,
        cost=shares.of_error(error, _part(error.cost, error.count) if error.cost is not None else unit.cost),
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
        case ChargeUnknown() if is_unfetched(error) and not is_kept:
            return "expired"
        case _:
            return "pending"
