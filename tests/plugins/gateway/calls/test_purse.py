"""A key's limits to the second and the billionth of a dollar, without a gateway around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest

from impasto import (
    Artifact,
    ChargeUnknown,
    Cost,
    FailedArtifact,
    ImpastoError,
    NotSent,
    ProviderFault,
    Result,
    UnusableResult,
)
from impasto.ext import combine_results
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.budgets import BudgetGuard, check_limits, price_nano_usd
from impasto_plugins.gateway.calls.execution import PreparedCall
from impasto_plugins.gateway.config.model import KeyConfig
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.storage.late_writes import LateWrites
from impasto_plugins.state.sqlite import SQLiteState

NOON = 1_790_856_000
"""Of 1 October 2026, UTC."""

DIGEST = b"k" * 32


class Clock:
    now: float = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def state(tmp_path: Path, clock: Clock) -> AsyncIterator[SQLiteState]:
    state = SQLiteState(str(tmp_path), clock=clock)
    await state.open()
    yield state
    await state.aclose()


def caller(**limits: Any) -> Caller:
    return Caller(
        name="k", digest=DIGEST, limits=KeyConfig(name="k", sha256=DIGEST.hex(), **limits) if limits else None
    )


def call(n: int = 1, usd: float | None = 0.065) -> PreparedCall:
    return cast("PreparedCall", SimpleNamespace(n=n, cost=Cost(usd=usd, as_of="") if usd is not None else None))


async def come(n: int = 1, *failures: ImpastoError) -> Result:
    artifacts = tuple(Artifact(data=b"", media_type="image/png") for _ in range(n))
    return Result(
        artifacts=artifacts, errors=tuple(FailedArtifact(index=i, error=error) for i, error in enumerate(failures))
    )


def fails(error: ImpastoError, *others: ImpastoError) -> Callable[[], Awaitable[Result]]:
    async def fail() -> Result:
        error.errors = others
        raise error

    return fail


async def used(state: SQLiteState) -> dict[str, int]:
    """Return what the key has used, by its kind."""
    rows = await state.database.write(
        lambda db: db.execute("SELECT what, SUM(amount) FROM budgets GROUP BY what").fetchall()
    )
    return {what: amount for what, amount in rows if amount}


async def pay(state: SQLiteState, checked: PreparedCall | None = None, **limits: Any) -> None:
    checked = checked or call()
    await BudgetGuard(state.budgets, LateWrites(), caller(**limits)).charge(checked, lambda: come(checked.n))


@pytest.mark.parametrize(
    ("attempt", "pictures"),
    [
        (lambda: come(3), 3),
        (lambda: come(2, ChargeUnknown("no")), 3),
        (lambda: come(2, UnusableResult("no")), 3),
        (lambda: come(2, NotSent("no")), 2),
        (lambda: come(1, NotSent("no"), ChargeUnknown("no")), 2),
        (lambda: come(4), 4),
        (fails(NotSent("no")), 0),
        (fails(ProviderFault("no", status=500), NotSent("no"), NotSent("no")), 0),
        (fails(ChargeUnknown("no"), NotSent("no"), NotSent("no")), 1),
        (fails(NotSent("no"), ChargeUnknown("no"), NotSent("no")), 1),
        (fails(UnusableResult("no"), ChargeUnknown("no"), NotSent("no")), 2),
        (fails(ChargeUnknown("no")), 3),
    ],
    ids=range(12),
)
async def test_of_three_images_those_are_spent_that_may_have_been_charged(
    state: SQLiteState, attempt: Callable[[], Awaitable[Result]], pictures: int
) -> None:
    limits = caller(rpm=9, images_per_day=9, usd_per_month=9)
    with suppress(ImpastoError):
        await BudgetGuard(state.budgets, LateWrites(), limits).charge(call(3), attempt)
    expected = {"requests": 1, "images": pictures, "nano_usd": pictures * 65_000_000}
    assert await used(state) == {what: amount for what, amount in expected.items() if amount}


async def test_a_failed_request_costs_what_its_provider_says(state: SQLiteState) -> None:
    error = UnusableResult("no")
    error.cost = Cost(usd=0.01, as_of="")
    with pytest.raises(UnusableResult):
        await BudgetGuard(state.budgets, LateWrites(), caller(images_per_day=9)).charge(call(1), fails(error))
    assert await used(state) == {"requests": 1, "images": 1, "nano_usd": 10_000_000}


async def test_images_of_one_failed_request_are_each_counted_once(state: SQLiteState) -> None:
    """One image came; of a request for three, one was charged, one may have been, and one was not."""
    error = UnusableResult("no")
    error.billed_each = ("yes", "no", "unknown")
    one = attrs.evolve(await come(1), cost=Cost(usd=0.5, as_of=""))  # the vendor's own
    result = combine_results([(one, 1), (error, 3)], price=lambda: call().cost)

    async def attempt() -> Result:
        return result

    await BudgetGuard(state.budgets, LateWrites(), caller(images_per_day=9)).charge(call(4), attempt)
    assert await used(state) == {"requests": 1, "images": 3, "nano_usd": 630_000_000}


async def test_an_answer_with_more_errors_than_images_asked_for_gives_nothing_back(state: SQLiteState) -> None:
    error = UnusableResult("no")
    error.billed_each = ("yes", "no", "no")

    async def attempt() -> Result:
        raise error

    with pytest.raises(UnusableResult):
        await BudgetGuard(state.budgets, LateWrites(), caller(images_per_day=9)).charge(call(1), attempt)
    assert await used(state) == {"requests": 1, "images": 1, "nano_usd": 65_000_000}


async def test_a_call_that_goes_elsewhere_is_one_request_and_pays_each_attempt(state: SQLiteState) -> None:
    purse = BudgetGuard(state.budgets, LateWrites(), caller(rpm=1, images_per_day=9))
    with pytest.raises(ChargeUnknown):
        await purse.charge(call(), fails(ChargeUnknown("no")))
    await purse.charge(call(), come)
    assert await used(state) == {"requests": 1, "images": 2, "nano_usd": 130_000_000}


class SlowBudgets:
    """Budgets whose store answers when it may."""

    def __init__(self, budgets: Any, slow: str) -> None:
        self.budgets, self.slow = budgets, slow
        self.began, self.may_end = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        self.began.set()
        await self.may_end.wait()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def run(*args: Any) -> Any:
            if name == self.slow == "settle":
                await self.wait()
            outcome = await getattr(self.budgets, name)(*args)
            if name == self.slow == "reserve":
                await self.wait()
            return outcome

        return run


@pytest.mark.parametrize(
    ("slow", "spent"),
    [("reserve", {}), ("settle", {"requests": 1, "images": 2, "nano_usd": 130_000_000})],
)
async def test_a_call_that_is_cancelled_while_the_store_answers_has_spent_what_it_cost(
    state: SQLiteState, slow: str, spent: dict[str, int]
) -> None:
    budgets = SlowBudgets(state.budgets, slow)
    guard = BudgetGuard(cast("Any", budgets), LateWrites(), caller(rpm=9, images_per_day=9))
    task = asyncio.create_task(guard.charge(call(3), lambda: come(2, NotSent("no"))))
    await budgets.began.wait()
    task.cancel()
    await asyncio.sleep(0)
    budgets.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await used(state) == spent


async def test_a_line_of_a_batch_is_no_request(state: SQLiteState) -> None:
    limits = caller(rpm=1)
    for _ in range(3):
        await BudgetGuard(state.budgets, LateWrites(), limits, is_counted=True).charge(call(), come)
    assert "requests" not in await used(state)
    await BudgetGuard(state.budgets, LateWrites(), limits).charge(call(), come)
    with pytest.raises(APIError):
        await BudgetGuard(state.budgets, LateWrites(), limits).charge(call(), come)


async def test_a_key_without_limits_is_not_counted(state: SQLiteState) -> None:
    await pay(state)
    assert await used(state) == {}


async def test_a_refusal_is_not_counted(state: SQLiteState) -> None:
    for limits in ({"images_per_day": 1}, {"usd_per_month": 0.1}):
        with pytest.raises(APIError):
            await pay(state, call(2), **limits)
    assert await used(state) == {}


@pytest.mark.parametrize(
    ("limits", "n", "message", "seconds"),
    [
        ({"images_per_day": 3}, 2, "may make 3 images a day, and 1 are left until 2026-10-02T00:00Z", 43_200),
        (
            {"usd_per_month": 0.2},
            2,
            "this may cost 0.13 USD; this key may spend 0.2 a month, and 0.07 are left until 2026-11-01T00:00Z",
            30 * 86_400 + 43_200,
        ),
    ],
    ids=["images_per_day", "usd_per_month"],
)
async def test_a_refusal_says_what_is_left_and_until_when(
    state: SQLiteState, limits: dict[str, Any], n: int, message: str, seconds: int
) -> None:
    await pay(state, call(2), **limits)
    with pytest.raises(APIError) as refused:
        await pay(state, call(n), **limits)
    assert message in refused.value.message
    assert refused.value.retry_after == seconds
    assert refused.value.message.endswith("; nothing was sent")


async def test_a_limit_that_was_lowered_leaves_nothing_and_not_less(state: SQLiteState) -> None:
    await pay(state, call(5), images_per_day=5, usd_per_month=5)
    for limits in ({"images_per_day": 3}, {"usd_per_month": 0.1}):
        with pytest.raises(APIError, match="and 0 are left until"):
            await pay(state, call(1), **limits)


async def test_the_rest_may_be_spent_to_the_last(state: SQLiteState) -> None:
    limits: dict[str, Any] = {"images_per_day": 10, "usd_per_month": 0.65}
    for _ in range(10):
        await pay(state, **limits)
    with pytest.raises(APIError):
        await pay(state, **limits)


async def test_a_month_ends_with_its_year_too(state: SQLiteState, clock: Clock) -> None:
    clock.now = 1_798_718_400 - 3600  # 31 December 2026, 11:00 UTC
    await pay(state, usd_per_month=0.065)
    with pytest.raises(APIError, match="until 2027-01-01T00:00Z") as refused:
        await pay(state, usd_per_month=0.065)
    assert refused.value.retry_after == 13 * 3600
    clock.now += 13 * 3600
    await pay(state, usd_per_month=0.065)


@pytest.mark.parametrize(
    ("seconds", "day"), [(86_400 - 43_200 - 1, False), (86_400 - 43_200, True)], ids=["the last second", "midnight"]
)
async def test_a_day_ends_at_midnight(state: SQLiteState, clock: Clock, seconds: int, day: bool) -> None:
    await pay(state, images_per_day=1)
    clock.now += seconds
    if day:
        await pay(state, images_per_day=1)
    else:
        with pytest.raises(APIError):
            await pay(state, images_per_day=1)


async def test_a_minute_slides_by_each_second(state: SQLiteState, clock: Clock) -> None:
    """Of three a minute: two now, one in ten seconds. The next is due when the first two are past."""
    await pay(state, rpm=3)
    await pay(state, rpm=3)
    clock.now = NOON + 10.5
    await pay(state, rpm=3)
    for at, wait in ((NOON + 10.5, 50.5), (NOON + 60.5, 0.5)):
        clock.now = at
        with pytest.raises(APIError) as refused:
            await pay(state, rpm=3)
        assert (refused.value.retry_after, refused.value.should_retry) == (wait, True)
    clock.now = NOON + 61
    await pay(state, rpm=3)
    await pay(state, rpm=3)
    with pytest.raises(APIError) as refused:  # that of ten seconds later still counts
        await pay(state, rpm=3)
    assert refused.value.retry_after == 10
    assert "3 requests a minute, and the next in 10 s" in refused.value.message


async def test_a_limit_that_was_lowered_lets_enough_go_by_first(state: SQLiteState, clock: Clock) -> None:
    for second in range(4):
        clock.now = NOON + second
        await pay(state, rpm=9)
    with pytest.raises(APIError) as refused:
        await pay(state, rpm=2)  # three of the four have to be past
    assert refused.value.retry_after == 2 + 61 - 3


async def test_usage_that_still_counts_is_not_forgotten(state: SQLiteState, clock: Clock) -> None:
    await pay(state, rpm=1)
    clock.now = NOON + 60
    await state.budgets.delete_old()
    assert await used(state) == {"requests": 1, "images": 1, "nano_usd": 65_000_000}
    clock.now = NOON + 61
    await state.budgets.delete_old()
    assert await used(state) == {"images": 1, "nano_usd": 65_000_000}
    clock.now = NOON + 43_200
    await state.budgets.delete_old()
    assert await used(state) == {"nano_usd": 65_000_000}
    clock.now = NOON + 31 * 86_400
    await state.budgets.delete_old()
    assert await used(state) == {}


async def test_one_keys_past_is_no_others(state: SQLiteState) -> None:
    await pay(state, images_per_day=1)
    other = Caller(name="o", digest=b"o" * 32, limits=KeyConfig(name="o", sha256="", images_per_day=1))
    await BudgetGuard(state.budgets, LateWrites(), other).charge(call(), come)


async def test_a_limit_that_can_not_be_looked_up_sends_nothing(state: SQLiteState) -> None:
    await state.database.write(lambda db: db.execute("DROP TABLE budgets"))
    sent = False

    async def attempt() -> Result:
        nonlocal sent
        sent = True
        return await come()

    with pytest.raises(APIError) as refused:
        await BudgetGuard(state.budgets, LateWrites(), caller(rpm=1)).charge(call(), attempt)
    headers = refused.value.to_response().headers
    assert (refused.value.status, headers["retry-after"], headers["x-should-retry"]) == (503, "5", "true")
    assert refused.value.not_charged
    assert not sent


async def test_a_cost_that_can_not_be_settled_withholds_no_image(state: SQLiteState) -> None:
    async def attempt() -> Result:
        await state.database.write(lambda db: db.execute("DROP TABLE budgets"))
        return await come(2)

    result = await BudgetGuard(state.budgets, LateWrites(), caller(images_per_day=9)).charge(call(3), attempt)
    assert len(result.artifacts) == 2


@pytest.mark.parametrize("limits", [{"usd_per_month": 5}, {"images_per_day": 5}, {}], ids=str)
def test_a_price_must_be_known_only_within_a_limit_in_usd(limits: dict[str, Any]) -> None:
    names = caller(**limits).limits
    assert price_nano_usd(call(), names) == 65_000_000
    if "usd_per_month" in limits:
        with pytest.raises(APIError, match="price of this model is unknown") as refused:
            price_nano_usd(call(usd=None), names)
        assert (refused.value.status, refused.value.retry_after, refused.value.should_retry) == (429, None, False)
    else:
        assert price_nano_usd(call(usd=None), names) == 0


async def test_a_batch_that_would_pass_a_limit_is_known_before_it_begins(state: SQLiteState) -> None:
    ann = caller(images_per_day=4, usd_per_month=1)
    for images, nano_usd in ((5, 0), (0, 1_000_000_001)):
        with pytest.raises(APIError, match="are left until"):
            await check_limits(state.budgets, ann, images=images, nano_usd=nano_usd)
    await check_limits(state.budgets, ann, images=4, nano_usd=1_000_000_000)
    assert await used(state) == {}
