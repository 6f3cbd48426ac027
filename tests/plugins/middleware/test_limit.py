"""The middleware between a call and its gate. Over sockets: tests/reliability/test_rates.py and test_retries.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from impasto import (
    Account,
    Call,
    ChargeUnknown,
    ImpastoError,
    NotSent,
    RateLimit,
    RateLimited,
    Request,
    Retry,
    WireRequest,
    WireResponse,
)
from impasto.ext import Options
from impasto_plugins.middleware.gate import Gate, gate_of, model_pauses
from impasto_plugins.middleware.limit import plugin
from impasto_plugins.middleware.window import slack
from impasto_plugins.stability.provider import stability

state: Path | None = None


@pytest.fixture(params=["process", "machine"], autouse=True)
def kind_of_window(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Each test runs with a window of the process and with one that processes share."""
    global state  # noqa: PLW0603 - of this module's tests
    state = tmp_path if request.param == "machine" else None
    yield
    state = None


def account(key: str, rate_limit: RateLimit | None = None) -> Account:
    one = stability.account({"api_key": key, "api_base": "http://127.0.0.1:9"})
    return attrs.evolve(one, rate_limit=rate_limit)


def request_of(one: Account, policy: Retry | None = None, target: str = "/") -> WireRequest:
    policy = policy or Retry()
    call = Call(Request(operation="x/y", params=policy, target=target), one, timeout=9, retry=policy)
    return WireRequest(target=target).with_call(call)


async def send(wire: WireRequest, failure: ImpastoError | None = None) -> None:
    async def transport(wire: WireRequest) -> WireResponse:
        if failure is not None:
            raise failure
        return WireResponse(status=200, headers={})

    if failure is None:
        await plugin(Options(state=state)).middleware()(wire, transport)
        return
    with pytest.raises(type(failure)):
        await plugin(Options(state=state)).middleware()(wire, transport)


def limited(*, retry_after: float | None = None, per_model: bool = False) -> RateLimited:
    error = RateLimited("x", status=429)
    error.retry_after, error.per_model = retry_after, per_model
    return error


def is_held_to_the_documented_limit(gate: Gate, one: Account) -> bool:
    """A key that had no limit and 10,000 calls ahead waits only if the provider's limit applies by now."""
    gate._waiting = 10_000
    try:
        return gate.estimate_wait(one) > 600
    finally:
        gate._waiting = 0


async def test_an_unclear_failure_that_is_not_a_429_neither_pauses_nor_limits_the_key() -> None:
    one = account("sk-unclear")
    await send(request_of(one), ChargeUnknown("x"))
    assert gate_of(one).remaining_pause() == 0
    assert not is_held_to_the_documented_limit(gate_of(one), one)


async def test_a_429_of_a_proxy_pauses_the_key_for_no_longer_than_the_callers_maximum() -> None:
    one = account("sk-proxy")
    error = ChargeUnknown("x")
    error.pause = 30.0
    await send(request_of(one), error)
    assert 29 < gate_of(one).remaining_pause() <= 30
    assert is_held_to_the_documented_limit(gate_of(one), one)
    two = account("sk-proxy-2")
    await send(request_of(two, Retry(max_wait=5.0)), error)
    assert 4 < gate_of(two).remaining_pause() <= 5


async def test_a_429_of_a_model_pauses_that_model_only_and_for_no_longer_than_the_callers_maximum() -> None:
    one = account("sk-model")
    await send(request_of(one, Retry(max_wait=5.0), "/a"), limited(retry_after=30.0, per_model=True))
    assert 4 < model_pauses.remaining(request_of(one, target="/a")) <= 5
    assert model_pauses.remaining(request_of(one, target="/b")) == 0
    assert gate_of(one).remaining_pause() == 0
    assert not is_held_to_the_documented_limit(gate_of(one), one)


async def test_a_429_of_a_model_without_a_time_pauses_nothing() -> None:
    one = account("sk-model-2")
    await send(request_of(one, target="/a"), limited(per_model=True))
    assert model_pauses.remaining(request_of(one, target="/a")) == 0
    assert gate_of(one).remaining_pause() == 0


async def test_a_429_of_a_key_holds_it_to_the_documented_limit_even_without_a_time() -> None:
    one = account("sk-key")
    await send(request_of(one), limited())
    assert gate_of(one).remaining_pause() == 0
    assert is_held_to_the_documented_limit(gate_of(one), one)


async def test_a_started_call_whose_model_is_paused_for_longer_than_it_has_fails_without_a_request() -> None:
    one = account("sk-model-3")
    model_pauses.pause(request_of(one, target="/a"), 30)
    wire = request_of(one, target="/a")
    wire.call.remaining = lambda: 20.0  # type: ignore[method-assign]  # as of a call that started
    with pytest.raises(RateLimited, match="the key may send again in"):
        await plugin(Options(state=state)).middleware()(wire, None)  # type: ignore[arg-type]  # never called


async def test_an_answer_frees_the_place_of_its_request() -> None:
    one = account("sk-answer", RateLimit(1, 0.05))
    for _ in range(3):
        await send(request_of(one))
    assert gate_of(one)._window.estimate_wait(RateLimit(2, 60.0), 1, time.monotonic()) > 0, "the last one counts"
    assert gate_of(one)._window.estimate_wait(RateLimit(4, 60.0), 0, time.monotonic()) == 0, "and nothing is held"


async def test_a_request_that_was_not_sent_frees_its_place_at_once() -> None:
    one = account("sk-not-sent", RateLimit(1, 60.0))
    await send(request_of(one), NotSent("x"))
    await asyncio.wait_for(send(request_of(one)), 1)


async def test_a_written_request_without_an_answer_is_counted_when_it_must_have_arrived() -> None:
    one = account("sk-written", RateLimit(1, 60.0))

    async def transport(wire: WireRequest) -> WireResponse:
        wire.call.on_written()
        wait = gate_of(one)._try_acquire(one)
        assert isinstance(wait, float)
        assert 0 < wait < slack(RateLimit(1, 60.0)), "it must have arrived by then"
        return WireResponse(status=200, headers={})

    await plugin(Options(state=state)).middleware()(request_of(one), transport)


async def test_a_call_whose_model_is_paused_waits_and_blocks_no_other() -> None:
    one = account("sk-model-4")
    model_pauses.pause(request_of(one, target="/a"), 0.05)
    ticks: list[float] = []
    asyncio.get_running_loop().call_later(0.01, ticks.append, 0.01)
    await send(request_of(one, target="/a"))
    assert model_pauses.remaining(request_of(one, target="/a")) == 0
    assert ticks, "the loop did other work meanwhile"


async def test_a_signed_address_neither_waits_for_the_key_nor_holds_it_up() -> None:
    one = account("sk-signed-address")
    gate_of(one).pause(60.0)
    signed = attrs.evolve(request_of(one), anonymous=True)
    async with asyncio.timeout(5):
        await send(signed)
    other = account("sk-signed-address-refused")
    await send(attrs.evolve(request_of(other), anonymous=True), limited(retry_after=60.0))
    assert gate_of(other).remaining_pause() == 0.0
