"""The waits between retries. Which failures are retried: tests/reliability/test_retries.py."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable

import pytest

import impasto
from impasto import (
    Account,
    ChargeUnknown,
    NotSent,
    ProviderFault,
    Request,
    Retry,
    Unauthorized,
    WireRequest,
    WireResponse,
)
from impasto.ext import Options
from impasto_plugins.middleware import retry as module
from impasto_plugins.middleware.gate import gate_of, model_pauses
from impasto_plugins.middleware.retry import RetryBudget
from impasto_plugins.stability.provider import stability

ANSWER = WireResponse(status=200, headers={})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest that each wait may take; none takes any time."""
    bounds: list[float] = []

    def uniform(minimum: float, maximum: float) -> float:
        bounds.append(maximum)
        return minimum

    monkeypatch.setattr(random, "uniform", uniform)
    return bounds


def account(key: str) -> Account:
    return stability.account({"api_key": key, "api_base": "http://127.0.0.1:9"})


def request_of(policy: Retry, *, key: str = "sk-retry", method: str = "POST") -> WireRequest:
    request = Request(operation="x/y", params=policy, target="/")
    call = impasto.Call(request, account(key), timeout=math.inf, retry=policy)
    return WireRequest(target="/", method=method).with_call(call)  # type: ignore[arg-type]  # GET or POST


async def send(
    wire: WireRequest, failures: list[impasto.ImpastoError], plugin: module.RetryPlugin | None = None
) -> tuple[int, impasto.ImpastoError | None]:
    """Send a request, each failure in turn before an answer. Return the number of requests and the error."""
    number = 0

    async def transport(wire: WireRequest) -> WireResponse:
        nonlocal number
        number += 1
        if number <= len(failures):
            raise failures[number - 1]
        return ANSWER

    try:
        assert await (plugin or module.plugin(Options())).middleware()(wire, transport) is ANSWER
    except impasto.ImpastoError as error:
        return number, error
    return number, None


def busy() -> ProviderFault:
    return ProviderFault("busy", status=500)


def refused(*, retryable: bool, is_free: bool = True) -> Unauthorized:
    """What the route raises of a 401; it is retryable if the plugin can authorize again."""
    error = Unauthorized("no", status=401, billed="no" if is_free else "unknown")
    error.retryable = retryable
    return error


async def test_every_kind_of_failure_doubles_the_wait(waits: list[float]) -> None:
    wire = request_of(Retry(attempts=9, refused=9, on_ambiguous=True, max_charges=9))
    failures = [NotSent("x"), busy(), ChargeUnknown("x"), NotSent("x"), ChargeUnknown("x")]
    assert await send(wire, failures) == (6, None)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("make", "policy", "number"),
    [
        (lambda: NotSent("x"), Retry(attempts=3, base=0), 3),
        (lambda: NotSent("x", retryable=False), Retry(base=0), 1),
        (busy, Retry(refused=2, base=0), 3),
        (busy, Retry(refused=0, base=0), 1),
        (lambda: ChargeUnknown("x"), Retry(max_charges=9, base=0), 1),
        (lambda: ChargeUnknown("x"), Retry(on_ambiguous=True, max_charges=3, base=0), 3),
    ],
)
async def test_retries_end_as_the_policy_says(
    make: Callable[[], impasto.ImpastoError], policy: Retry, number: int
) -> None:
    failures = [make() for _ in range(9)]
    assert await send(request_of(policy), failures) == (number, failures[number - 1])


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    ("failure", "number"),
    [
        (lambda: refused(retryable=True), 2),
        (lambda: refused(retryable=False), 1),
        (lambda: refused(retryable=True, is_free=False), 1),
    ],
)
async def test_a_401_is_authorized_again_once_if_it_can_be_and_was_free(
    failure: Callable[[], Unauthorized], number: int, method: str
) -> None:
    failures: list[impasto.ImpastoError] = [failure() for _ in range(9)]
    wire = request_of(Retry(attempts=9, refused=9, on_ambiguous=True), method=method)
    assert await send(wire, failures) == (number, failures[number - 1])


async def test_a_refusal_that_is_not_retryable_is_raised_at_once() -> None:
    final = busy()
    final.retryable = False
    assert await send(request_of(Retry()), [final]) == (1, final)


async def test_a_poll_is_not_retried_here() -> None:
    failure = NotSent("x")
    assert await send(request_of(Retry(base=0), method="GET"), [failure]) == (1, failure)


@pytest.mark.parametrize("left", [0.5, 0.4])
async def test_a_wait_that_would_take_all_the_remaining_time_is_not_started(
    waits: list[float], monkeypatch: pytest.MonkeyPatch, left: float
) -> None:
    monkeypatch.setattr(random, "uniform", lambda minimum, maximum: maximum)
    wire = request_of(Retry(base=0.5))
    monkeypatch.setattr(wire.call, "remaining", lambda: left)
    failure = NotSent("x")
    assert await send(wire, [failure]) == (1, failure)


async def test_a_429_is_raised_if_its_key_or_its_model_waits_longer_than_the_call_has(waits: list[float]) -> None:
    def limited() -> impasto.RateLimited:
        return impasto.RateLimited("x", status=429)

    key, model = request_of(Retry(), key="sk-paused"), request_of(Retry(), key="sk-model-paused")
    gate_of(key.call.account).pause(30)
    model_pauses.pause(model, 30)
    for wire in (key, model):
        wire.call.remaining = lambda: 20.0  # type: ignore[method-assign]  # as of a call that started
        failure = limited()
        assert await send(wire, [failure]) == (1, failure)
        wire.call.remaining = lambda: 40.0  # type: ignore[method-assign]  # the same
        assert await send(wire, [limited()]) == (2, None)


async def test_a_429_does_not_use_the_retry_budget(waits: list[float]) -> None:
    policy = Retry(budget=0, floor=1)
    wire, plugin = request_of(policy), module.plugin(Options())
    assert await send(wire, [impasto.RateLimited("x", status=429) for _ in range(3)], plugin) == (4, None)
    assert await send(wire, [NotSent("x")], plugin) == (2, None)
    failure = NotSent("x")
    assert await send(wire, [failure], plugin) == (1, failure)


def test_jitter_is_full_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    minimum: list[float] = []

    def maximum(low: float, high: float) -> float:
        minimum.append(low)
        return high

    monkeypatch.setattr(random, "uniform", maximum)
    call = impasto.Call.__new__(impasto.Call)
    call._retry = impasto.Retry(base=0.5, cap=8.0)
    waits = [module._backoff(impasto.NotSent("x"), tries, call) for tries in (1, 2, 3, 4, 5, 6, 5000)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    limited = impasto.RateLimited("x", status=429)
    assert [module._backoff(limited, tries, call) for tries in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 8.0, 8.0], (
        "its own back-off"
    )
    limited.retry_after = 60.0
    assert module._backoff(limited, 9, call) == 0.5, "the gate holds the key back"
    assert set(minimum) == {0}


def test_the_last_try_comes_after_two_seconds_whatever_the_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    call = impasto.Call.__new__(impasto.Call)
    for attempts, expected in ((4, [0, 0, 2.0]), (3, [0, 1.0]), (2, [0])):
        call._retry = impasto.Retry(attempts=attempts)
        waits = [module._backoff(impasto.NotSent("x"), tries, call) for tries in range(1, attempts)]
        assert waits == expected


def test_retries_are_a_share_of_the_requests_and_a_floor() -> None:
    budget, policy = RetryBudget(), Retry(budget=0.5, floor=1)
    for _ in range(4):
        budget.count_request()
    assert [budget.try_spend(policy) for _ in range(5)] == [True, True, True, False, False]


def test_each_minute_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    budget, policy = RetryBudget(), Retry(budget=1, floor=0)
    budget.count_request()
    assert budget.try_spend(policy)
    now += 60.0
    assert not budget.try_spend(policy), "the minute is not over"
    budget.count_request()
    now += 60.1
    budget.count_request()
    assert [budget.try_spend(policy) for _ in range(2)] == [True, False], "counted in its own minute"
    now += 60.0
    assert not budget.try_spend(policy), "this minute is not over"
    now += 0.1
    assert not budget.try_spend(policy), "the requests of an earlier minute count no more"
    budget.count_request()
    assert budget.try_spend(policy)
    assert not budget.try_spend(policy)


async def test_the_loop_does_other_work_while_a_retry_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: 0.02)
    ticks: list[float] = []
    asyncio.get_running_loop().call_later(0.01, ticks.append, 0.01)
    assert await send(request_of(Retry()), [NotSent("x")]) == (2, None)
    assert ticks
