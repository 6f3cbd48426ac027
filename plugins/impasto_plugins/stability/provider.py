"""The provider and its prices."""

from __future__ import annotations

import attrs

from impasto import Cost, FlatPrice, Provider, RateLimit

stability = Provider(
    name="stability",
    base_url="https://api.stability.ai",
    base_url_variable="STABILITY_API_BASE",
    key_variable="STABILITY_API_KEY",
    rate_limit=RateLimit(150, 10.0),
    poll_interval=10.0,
    user_header="stability-client-user-id",
    health_path="/v1/user/balance",
)

USD_PER_CREDIT = 0.01
AS_OF = "2026-09-22"


def in_credits(number: float, note: str = "") -> FlatPrice:
    """Return a price in the vendor's credits, charged on success."""
    return FlatPrice(cost=_cost(number), note=note)


def _cost(credits: float) -> Cost:
    credits = round(credits, 6)
    return Cost(usd=round(credits * USD_PER_CREDIT, 6), credits=credits, as_of=AS_OF)


@attrs.frozen(kw_only=True)
class PerStep:
    """A price that depends on the field ``steps``: ``base`` credits, and ``each`` for every step."""

    base: float
    each: float
    steps: int
    """The vendor's default, used if the caller gives none."""

    def quote(self, params: attrs.AttrsInstance) -> Cost:
        """Return the price of one call with these parameters."""
        steps = getattr(params, "steps", None)
        return _cost(self.base + self.each * (self.steps if steps is None else steps))

    def __str__(self) -> str:
        usual = _cost(self.base + self.each * self.steps)
        formula = f"{self.base:g} + {self.each:g} x steps credits"
        return f"{formula}: {usual.credits:g} credits, {usual.usd:.4g} USD a call of {self.steps} steps, as of {AS_OF}"
