"""A quota error names the moment at which the day or the month of UTC ends, and how long that is away."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.budgets import check_limits
from impasto_plugins.gateway.config.model import KeyConfig
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.state.sqlite import SQLiteState


@pytest.mark.parametrize(
    ("limit", "now", "until"),
    [
        ({"images_per_day": 1}, "2026-12-31T23:00:00", "2027-01-01T00:00"),
        ({"usd_per_month": 1.0}, "2026-12-31T23:00:00", "2027-01-01T00:00"),
        ({"usd_per_month": 1.0}, "2026-11-30T23:00:00", "2026-12-01T00:00"),
        ({"usd_per_month": 1.0}, "2026-10-31T23:00:00", "2026-11-01T00:00"),
    ],
)
async def test_it_names_the_end_of_the_day_or_the_month(
    limit: dict[str, float], now: str, until: str, tmp_path: Path
) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()
    state = SQLiteState(str(tmp_path), clock=lambda: moment)
    caller = Caller(name="ann", digest=b"k", limits=KeyConfig(name="ann", sha256="0" * 64, **limit))  # type: ignore[arg-type]
    with pytest.raises(APIError, match=f"until {until}Z") as caught:
        await check_limits(state.budgets, caller, images=2, nano_usd=2_000_000_000)
    await state.aclose()
    assert caught.value.retry_after == 3600
