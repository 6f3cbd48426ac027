"""The client's own spend limit: reserved before a call, settled by what is known after it (S28)."""

from __future__ import annotations

import asyncio

import attrs
import pytest

import impasto
from tests.reliability.conftest import CORE, FAST, JOB_MODEL, MakeClient
from tests.reliability.servers import JOB, PICTURE, Server, picture, raw, refused, silence

PRICE = 0.03


async def test_s28_fifty_calls_with_a_budget_for_ten(server: Server, make_client: MakeClient) -> None:
    client = make_client(server.url, spend_limit_usd=10 * PRICE)
    outcomes = await asyncio.gather(*(client.run(CORE, prompt="p") for _ in range(50)), return_exceptions=True)
    assert len(server.paid) == 10
    assert sum(isinstance(each, impasto.Result) for each in outcomes) == 10
    refusals = [each for each in outcomes if isinstance(each, impasto.SpendLimitExceeded)]
    assert len(refusals) == 40
    assert "nothing was sent" in str(refusals[0])
    assert {error.billed for error in refusals} == {"no"}


async def test_refusals_give_their_reservation_back(server: Server, make_client: MakeClient) -> None:
    server.posts = [*[refused(402, "payment_required")] * 5, picture()]
    client = make_client(server.url, spend_limit_usd=PRICE)
    for _ in range(5):
        with pytest.raises(impasto.PaymentRequired):
            await client.run(CORE, prompt="p")
    await client.run(CORE, prompt="p")
    with pytest.raises(impasto.SpendLimitExceeded):
        await client.run(CORE, prompt="p")


async def test_a_possible_charge_counts(server: Server, make_client: MakeClient) -> None:
    server.posts = [raw(end="close")]
    client = make_client(server.url, spend_limit_usd=PRICE)
    with pytest.raises(impasto.ChargeUnknown):
        await client.run(CORE, prompt="p")
    with pytest.raises(impasto.SpendLimitExceeded):
        await client.run(CORE, prompt="p")


async def test_a_call_cancelled_before_anything_left_costs_nothing(server: Server, make_client: MakeClient) -> None:
    limit = impasto.RateLimit(1, 0.2)
    client = make_client(server.url, spend_limit_usd=2 * PRICE, rate_limit=limit)
    await client.run(CORE, prompt="p")
    waiting = asyncio.ensure_future(client.run(CORE, prompt="p"))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await client.run(CORE, prompt="p")
    assert len(server.paid) == 2


async def test_a_call_cancelled_while_it_generates_counts(server: Server, make_client: MakeClient) -> None:
    server.posts = [silence]
    client = make_client(server.url, spend_limit_usd=PRICE)
    call = asyncio.ensure_future(client.run(CORE, prompt="p"))
    while not server.paid:
        await asyncio.sleep(0.002)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(impasto.SpendLimitExceeded):
        await client.run(CORE, prompt="p")


async def test_opted_in_charges_are_reserved_and_counted(server: Server, make_client: MakeClient) -> None:
    policy = impasto.Retry(base=0.001, on_ambiguous=True, max_charges=3)
    server.posts = [raw(end="close"), raw(end="close"), picture()]
    with pytest.raises(impasto.SpendLimitExceeded):
        await make_client(server.url, spend_limit_usd=2 * PRICE, retry=policy).run(CORE, prompt="p")
    assert server.connections == 0
    client = make_client(server.url, spend_limit_usd=3 * PRICE, retry=policy)
    result = await client.run(CORE, prompt="p")
    assert result.warnings == ("2 earlier attempts may have been charged too (Retry.on_ambiguous)",)
    with pytest.raises(impasto.SpendLimitExceeded):
        await client.run(CORE, prompt="p", retry=FAST)


async def test_an_unknown_price_is_refused(server: Server, make_client: MakeClient) -> None:
    from impasto_plugins.stability import stable_image_core

    registry = impasto.Registry()
    registry.add("impasto.operations", CORE, attrs.evolve(stable_image_core.operation, price=None))
    client = make_client(server.url, spend_limit_usd=100.0, registry=registry)
    with pytest.raises(impasto.SpendLimitExceeded, match="price is unknown"):
        await client.run(CORE, prompt="p")
    assert server.connections == 0


async def test_siblings_share_what_was_spent(server: Server, make_client: MakeClient) -> None:
    client = make_client(server.url, spend_limit_usd=PRICE)
    await client.run(CORE, prompt="p")
    with pytest.raises(impasto.SpendLimitExceeded):
        await client.with_options(timeout=4.0).run(CORE, prompt="p")
    await client.with_options(spend_limit_usd=2 * PRICE).run(CORE, prompt="p")


async def test_taking_up_a_job_again_costs_nothing(server: Server, make_client: MakeClient) -> None:
    client = make_client(server.url, spend_limit_usd=PRICE)
    await client.run(CORE, prompt="p")
    assert (await client.resume(JOB_MODEL, JOB)).artifacts[0].data == PICTURE


async def test_a_fan_out_that_fails_whole_speaks_for_all_its_pictures(server: Server, make_client: MakeClient) -> None:
    server.posts = [refused(422, "invalid_language"), raw(end="close")]
    with pytest.raises(impasto.ImpastoError) as caught:
        await make_client(server.url).run(CORE, prompt="p", n=2)
    error = caught.value
    assert {type(error), *(type(other) for other in error.errors)} == {impasto.Unprocessable, impasto.ChargeUnknown}
    assert (error.billed, error.retryable) == ("unknown", False)
