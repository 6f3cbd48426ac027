"""The provider and its prices."""

from __future__ import annotations

from impasto import Cost, FlatPrice, Provider, RateLimit

stability = Provider(
    name="stability",
    base_url="https://api.stability.ai",
    base_url_variable="STABILITY_API_BASE",
    key_variable="STABILITY_API_KEY",
    rate_limit=RateLimit(150, 10.0),
    poll_seconds=10.0,
    user_header="stability-client-user-id",
)

USD_PER_CREDIT = 0.01
AS_OF = "2026-09-22"


def in_credits(number: float, note: str = "") -> FlatPrice:
    """A price in the vendor's in_credits, charged on success."""
    usd = round(number * USD_PER_CREDIT, 6)
    return FlatPrice(cost=Cost(usd=usd, credits=number, as_of=AS_OF), note=note)
