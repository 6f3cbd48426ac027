"""Failed requests whose provider says what they cost: their errors have it, and spend limits count it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

import impasto
from impasto import (
    ChargeUnknown,
    ContentFiltered,
    Cost,
    ImpastoError,
    JobFailed,
    Operation,
    Provider,
    Registry,
    SpendLimitExceeded,
    Usage,
    WireResponse,
)
from impasto.dialects import TokenPrice
from impasto.ext import cost_of_failure
from impasto.registry import OPERATIONS
from impasto.testing import Answer, Recorder, recording
from impasto.testing.recorder import always
from tests.core.test_jobs import Dialect, Params, acme, in_turn, says

PRICE = Cost(usd=0.04, as_of="2026-01-01")
OWN = Cost(usd=0.01, as_of="2026-11-01")
COUNTED = Usage(input_tokens=100, output_tokens=0, input_text_tokens=100, input_image_tokens=0)


def refused(**facts: Any) -> Callable[[], ImpastoError]:
    def error() -> ImpastoError:
        refusal = ContentFiltered("not this", status=403, billed=facts.get("billed", "yes"))
        for name, value in facts.items():
            setattr(refusal, name, value)
        return refusal

    return error


@attrs.define
class Refusing(Dialect):
    error: Callable[[], ImpastoError]

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        return self.error()


async def failure(error: Callable[[], ImpastoError], **options: Any) -> tuple[ImpastoError, impasto.Client, Recorder]:
    """Return the error of a model whose tokens have a price, and which is estimated at 0.04 USD."""
    price = TokenPrice[Params](text_input=2, image_input=2, output=30, as_of="2026-01-01", estimate=lambda _: 0.04)
    provider = Provider(name="acme", base_url="https://api.acme.example", key_header="x-key")
    model = Operation(
        id="acme/x", title="X", params=Params, target="/", provider=provider, dialect=Refusing(error), price=price
    )
    registry = Registry()
    registry.add(OPERATIONS, "acme/x", model)
    async with recording(always(Answer(status=403))) as recorder:
        where = {"acme": {"api_base": recorder.url, "api_key": "k"}}
        async with impasto.Client(registry=registry, providers=where, **options) as client:
            last: Exception = AssertionError("the limit was reached before any call")
            with pytest.raises(ContentFiltered) as caught:
                for _ in range(20):
                    try:
                        await client.run("acme/x", prompt="a kite")
                    except ContentFiltered as refusal:
                        if "spend_limit_usd" not in options:
                            raise
                        last = refusal
                    except SpendLimitExceeded:
                        raise last from None
            return caught.value, client, recorder


@pytest.mark.parametrize(
    ("error", "cost"),
    [
        (refused(cost=OWN), OWN),
        (refused(usage=COUNTED), Cost(usd=0.0002, as_of="2026-01-01")),
        (refused(cost=OWN, usage=COUNTED), OWN),
        (refused(), None),
        (refused(cost=Cost(usd=float("nan"), as_of="")), None),
        (refused(cost="0.01"), None),
        (refused(usage="many"), None),
    ],
)
async def test_an_error_has_the_cost_that_its_provider_states(
    error: Callable[[], ImpastoError], cost: Cost | None
) -> None:
    caught, _, _ = await failure(error)
    assert (caught.cost, caught.billed) == (cost, "yes")


@pytest.mark.parametrize(
    ("error", "calls"),
    [(refused(cost=OWN), 7), (refused(cost=OWN, billed="unknown"), 7), (refused(), 2)],
    ids=["own", "own, perhaps", "price"],
)
async def test_a_spend_limit_counts_it(error: Callable[[], ImpastoError], calls: int) -> None:
    _, _, recorder = await failure(error, spend_limit_usd=0.10)
    assert len(recorder.posts) == calls


async def test_a_job_that_fails_cost_what_its_provider_said_as_it_began() -> None:
    async with acme(in_turn(says(poll="/s", usd=0.05), says(failed="unknown")), poll_interval=0.01) as (client, _):
        with pytest.raises(JobFailed) as caught:
            await client.run("acme/x", prompt="a kite")
    assert caught.value.cost == Cost(usd=0.05, as_of="2026-01-01")
    async with acme(in_turn(says(poll="/s", usd=0.05), says(failed="no")), poll_interval=0.01) as (client, _):
        with pytest.raises(JobFailed) as free:
            await client.run("acme/x", prompt="a kite")
    assert (free.value.cost, free.value.billed) == (None, "no")
    async with acme(in_turn(says(poll="/s", usd=0.05)), poll_interval=0.01) as (client, _):
        with pytest.raises(ChargeUnknown) as late:
            await client.run("acme/x", prompt="a kite", timeout=0.2)
    assert late.value.cost == Cost(usd=0.05, as_of="2026-01-01")


def test_of_several_failed_requests_each_has_its_own_cost() -> None:
    first, second, third = refused(cost=OWN)(), refused()(), refused(cost=OWN, billed="no")()
    first.errors, first.billed_each = (second, third), ("yes", "yes", "no")
    assert cost_of_failure(first, 3, PRICE) == Cost(usd=0.05, as_of="2026-11-01")
    assert cost_of_failure(first, 3, None) == OWN
    assert cost_of_failure(third, 1, PRICE) is None
    of_four = refused(cost=OWN, count=4)()
    assert cost_of_failure(of_four, 4, PRICE) == OWN
