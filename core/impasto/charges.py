"""The charges for artifacts that did not come: certain and possible ones, and the costs with them."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Iterable, Iterator
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
    return tuple(billed for _, each in _by_error(failures) for billed in each)


def _by_error(failures: Iterable[FailedArtifact]) -> Iterator[tuple[ImpastoError, tuple[Billed, ...]]]:
    """Yield each error with ``billed`` of its images: those of a failed request share its error."""
    for error, count in Counter(each.error for each in failures).items():
        yield error, billed_of_images(error, count) if count > 1 else (error.billed,)


def costs_with_failures(cost: Cost, failures: Iterable[FailedArtifact], price: Cost) -> tuple[Cost, Cost]:
    """Return a cost with the failed artifacts that were charged, and with those too that may have been.

    The cost that an error states is for all its images; of others each costs ``price``.
    """
    certain = possible = cost
    for error, billed in _by_error(failures):
        charged, unknown = billed.count("yes"), billed.count("unknown")
        if charged + unknown:
            most = price.times(charged + unknown) if error.cost is None else error.cost
            possible = possible + most
            certain = certain + (price.times(charged) if unknown else most)
    return certain, possible


def cost_of_failure(error: ImpastoError, count: int, price: Cost | None) -> Cost | None:
    """Return what a failed call for ``count`` images cost, or may have cost; None if it was free or nobody knows.

    It is what the provider says of each request, and ``price`` for each image of the others.
    """
    own = {each: each.cost for each in (error, *error.errors) if each.cost is not None and each.billed != "no"}
    billed = billed_of_images(error, count)
    rest = max(len(billed) - billed.count("no") - sum(each.count for each in own), 0)
    costs = [*own.values(), *([price.times(rest)] if price is not None and rest else [])]
    return functools.reduce(operator.add, costs) if costs else None
