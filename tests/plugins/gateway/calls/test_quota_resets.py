"""A quota error names the moment at which the day or the month of UTC ends, and how long that is away."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pytest

from impasto_plugins.gateway.calls.budgets import check_limits
from impasto_plugins.gateway.config.model import KeyConfig
from impasto_plugins.gateway.errors import APIError


@pytest.mark.parametrize(
    ("limit", "now", "until"),
    [
        ({"images_per_day": 1}, "2026-12-31T23:00:00", "2027-01-01T00:00"),
        ({"usd_per_month": 1.0}, "2026-12-31T23:00:00", "2027-01-01T00:00"),
        ({"usd_per_month": 1.0}, "2026-11-30T23:00:00", "2026-12-01T00:00"),
        ({"usd_per_month": 1.0}, "2026-10-31T23:00:00", "2026-11-01T00:00"),
    ],
)
def test_it_names_the_end_of_the_day_or_the_month(limit: dict[str, float], now: str, until: str) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE used (key, what, period, amount)")
    key = KeyConfig(name="ann", sha256="0" * 64, **limit)  # type: ignore[arg-type]
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()
    with pytest.raises(APIError, match=f"until {until}Z") as caught:
        check_limits(db, key, b"k", images=2, nano_usd=2_000_000_000, now=moment)
    db.close()
    assert caught.value.retry_after == 3600
