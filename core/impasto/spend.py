"""The client's own spend limit: reserved before a call is sent, settled after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ImpastoError, SpendLimitExceeded
from .records import Cost


class Spend:
    """What one client and its ``with_options`` siblings spent, and what their calls in flight may still cost."""

    def __init__(self) -> None:
        self.usd = 0.0
        """Charged, or possibly charged, so far."""
        self.reserved = 0.0

    def reserve(self, cost: Cost | None, limit: float) -> float:
        """Sets one call's price aside. Raises SpendLimitExceeded, before anything is sent."""
        if cost is None:
            raise SpendLimitExceeded("its price is not known, and spend_limit_usd is set; nothing was sent")
        if self.usd + self.reserved + cost.usd > limit + 1e-9:
            left = max(limit - self.usd - self.reserved, 0)
            raise SpendLimitExceeded(
                f"a call costs {cost.usd:g} USD and {left:g} of spend_limit_usd={limit:g} is left; nothing was sent"
            )
        self.reserved += cost.usd
        return cost.usd

    @contextmanager
    def set_aside(self, cost: Cost | None, limit: float) -> Iterator[None]:
        """Holds one call's price while it runs."""
        reserved = self.reserve(cost, limit)
        outcome: BaseException | None = None
        try:
            yield
        except BaseException as error:
            outcome = error
            raise
        finally:
            self.settle(reserved, outcome)

    def settle(self, reserved: float, outcome: BaseException | None) -> None:
        """Ends a reservation. What is not proved free counts as spent."""
        self.reserved -= reserved
        free = isinstance(outcome, ImpastoError) and outcome.billed == "no"
        if not free:
            self.usd += reserved
