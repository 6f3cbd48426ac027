"""The charges for artifacts that did not come: certain and possible ones, and the costs with them."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .costs import Cost
    from .errors import Billed, ImpastoError
    from .records import FailedArtifact


def is_not_charged(error: ImpastoError) -> bool:
    """Return True if it is proved that a failed call, with all its images, cost nothing."""
    return all(each.billed == "no" for each in (error, *error.errors))


def billed_of_images(error: ImpastoError, count: int = 0) -> tuple[Billed, ...]:
    """Return ``billed`` of each failed image of a call for ``count`` images, if that is known."""
    billed = error.billed_each or tuple(each.billed for each in (error, *error.errors))
    return billed if len(billed) >= count else (error.billed,) * count


def billed_of_failures(failures: Iterable[FailedArtifact]) -> tuple[Billed, ...]:
    """Return ``billed`` of each failed image of a result."""
    billed: list[Billed] = []
    for error, count in Counter(each.error for each in failures).items():  # images of a failed request share its error
        billed += billed_of_images(error, count) if count > 1 else (error.billed,)
    return tuple(billed)


def costs_with_failures(cost: Cost, failures: Iterable[FailedArtifact], price: Cost) -> tuple[Cost, Cost]:
    """Return a cost with the failed artifacts that were charged, and with those too that may have been."""
    billed = billed_of_failures(failures)
    charged = billed.count("yes")
    cost = cost + price.times(charged) if charged else cost
    unknown = billed.count("unknown")
    return cost, cost + price.times(unknown) if unknown else cost


def cost_of_failure(error: ImpastoError, count: int, price: Cost | None) -> Cost | None:
    """Return what a failed call for ``count`` images cost, or may have cost; None if it was free or nobody knows.

    It is what the provider says of each request, and ``price`` for each image of the others.
    """
    own = {each: each.cost for each in (error, *error.errors) if each.cost is not None and each.billed != "no"}
    billed = billed_of_images(error, count)
    rest = max(len(billed) - billed.count("no") - sum(each.count for each in own), 0)
    costs = [*own.values(), *([price.times(rest)] if price is not None and rest else [])]
    return functools.reduce(operator.add, costs) if costs else None
