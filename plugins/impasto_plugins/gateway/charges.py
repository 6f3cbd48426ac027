"""The charges for images that did not come: certain ones, possible ones, and those that a known cost includes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from impasto import Cost, FailedArtifact, ImpastoError, Result
from impasto.ext import Billed


def is_not_charged(error: ImpastoError) -> bool:
    """Return True if it is proved that a failed call, with all its images, cost nothing."""
    return all(each.billed == "no" for each in (error, *error.errors))


def billed_of_images(error: ImpastoError) -> tuple[Billed, ...]:
    """Return ``billed`` of each failed image of a call."""
    return error.billed_each or tuple(each.billed for each in (error, *error.errors))


def billed_of_failures(failures: Iterable[FailedArtifact]) -> tuple[Billed, ...]:
    """Return ``billed`` of each failed image of a result."""
    billed: list[Billed] = []
    for error, count in Counter(each.error for each in failures).items():  # images of a failed request share its error
        of_images = billed_of_images(error)
        billed += of_images if len(of_images) >= count else (error.billed,) * count
    return tuple(billed)


def failures_beyond_cost(result: Result, price: Cost | None) -> Sequence[FailedArtifact]:
    """Return the failed images whose charge is not in the result's cost. ``price``: of each image, None if unknown.

    A cost of the provider's own has all images of its answers in it; one by the price has those that came.
    """
    cost, count = result.cost, len(result.artifacts)
    by_price = price if price is None or count == 1 else price.times(count)
    if cost is None or (by_price is not None and cost.usd == by_price.usd):
        return result.errors
    return [each for each in result.errors if each.request_failed]


def cost_with_failures(result: Result, price: Cost | None, *, possible: bool = False) -> Cost | None:
    """Return the cost of the images that came and of the failed ones that were charged; None if it is unknown.

    ``possible``: those that may have been charged count too.
    """
    billed = billed_of_failures(failures_beyond_cost(result, price))
    charged = len(billed) - billed.count("no") if possible else billed.count("yes")
    if not charged or result.cost is None or price is None:
        return result.cost if not charged else None
    failed, credits = price.times(charged), result.cost.credits
    return attrs.evolve(
        result.cost,
        usd=round(result.cost.usd + failed.usd, 10),
        credits=None if credits is None or failed.credits is None else round(credits + failed.credits, 10),
    )
