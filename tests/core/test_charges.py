"""What each failed image of a call was charged, from the errors of its requests."""

from __future__ import annotations

import pytest

from impasto import ChargeUnknown, ContentFiltered, Cost, FailedArtifact, ImpastoError, NotSent
from impasto.charges import billed_of_failures, billed_of_images, costs_with_failures, is_not_charged

PRICE = Cost(usd=0.04, credits=4.0, as_of="2026-11-01")


def charged(*errors: ImpastoError, each: tuple[str, ...] = ()) -> ContentFiltered:
    error = ContentFiltered("no", billed="yes")
    error.errors, error.billed_each = errors, each  # type: ignore[assignment]  # of "no", "yes" and "unknown"
    return error


@pytest.mark.parametrize(
    ("error", "count", "billed"),
    [
        (charged(), None, ("yes",)),
        (charged(), 1, ("yes",)),
        (charged(), 3, ("yes", "yes", "yes")),
        (charged(NotSent("no")), 2, ("yes", "no")),
        (charged(NotSent("no")), 1, ("yes", "no")),
        (charged(NotSent("no")), 3, ("yes", "yes", "yes")),  # not known of each
        (charged(NotSent("no"), each=("no", "unknown", "yes")), 3, ("no", "unknown", "yes")),
    ],
)
def test_each_image_is_billed_as_its_own_error_says_if_there_is_one(
    error: ImpastoError, count: int | None, billed: tuple[str, ...]
) -> None:
    assert (billed_of_images(error) if count is None else billed_of_images(error, count)) == billed


def test_failed_images_of_one_request_share_its_error_and_one_alone_counts_once() -> None:
    shared, alone = charged(each=("yes", "no")), charged(ChargeUnknown("no"))
    failures = [FailedArtifact(index=i, error=error) for i, error in enumerate((shared, shared, alone))]
    assert billed_of_failures(failures) == ("yes", "no", "yes")


def test_the_costs_of_failed_images_are_certain_or_possible() -> None:
    failures = [
        FailedArtifact(index=i, error=error) for i, error in enumerate((charged(), ChargeUnknown("x"), NotSent("x")))
    ]
    certain, possible = costs_with_failures(PRICE, failures, PRICE)
    assert (certain, possible) == (PRICE.times(2), PRICE.times(3))


@pytest.mark.parametrize(
    ("errors", "free"),
    [
        ((NotSent("x"),), True),
        ((NotSent("x"), NotSent("x")), True),
        ((NotSent("x"), ChargeUnknown("x")), False),
        ((ChargeUnknown("x"), NotSent("x")), False),
    ],
)
def test_a_call_was_free_if_all_its_requests_were(errors: tuple[ImpastoError, ...], free: bool) -> None:
    first, *others = errors
    first.errors = tuple(others)
    assert is_not_charged(first) is free
