"""What a client's own spend limit counts: reserved while a call runs, then what is not proved free.

Over sockets: tests/reliability/test_spending.py.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import attrs
import pytest

from impasto import (
    Artifact,
    Call,
    ChargeUnknown,
    Cost,
    FailedArtifact,
    NotSent,
    Pending,
    Request,
    Result,
    Retry,
    UnusableResult,
    WireRequest,
)
from impasto.errors import SpendLimitExceeded
from impasto.provider import Account, Provider
from impasto.spend_limit import Spend

DIME = Cost(usd=0.1, as_of="2026-01-01")
PICTURE = Artifact(data=b"x", media_type="image/png")
ACCOUNT = Account(provider=Provider(name="p", base_url="https://p.example"), base_url="https://p.example", headers={})


def a_call(retry: Retry | None = None, *, posts: int = 1, price: Cost | None = DIME, count: int = 1) -> Call:
    request = Request(operation="p/m", params=DIME, target="/", count=count)
    call = Call(request, ACCOUNT, timeout=9, retry=retry or Retry())
    call.price = price
    for _ in range(posts):
        call._begin()
        call.begin_attempt()
        call.mark_headers_sent()
    return call


def spent(spend: Spend, call: Call, ending: Result | BaseException, limit: float = 1.0) -> float:
    """Run a call that ends so. Return what it added to what is spent."""
    before = spend.usd
    fails = pytest.raises(type(ending)) if isinstance(ending, BaseException) else nullcontext()
    with fails, spend.reserve(call, limit) as settle:
        if isinstance(ending, BaseException):
            raise ending
        is_free, earlier = call.is_proven_free, call.unknown_attempts
        settle(ending.completed(call.price, call.request, is_free=is_free, earlier_attempts=earlier))
    assert spend.reserved == 0
    return round((spend.usd - before) / DIME.usd, 6)


def result(number: int = 1, *failures: Any) -> Result:
    return Result(artifacts=(PICTURE,) * number, errors=tuple(FailedArtifact(index=9, error=each) for each in failures))


def test_every_artifact_and_every_lost_one_that_was_charged_counts() -> None:
    spend = Spend()
    assert spent(spend, a_call(), result()) == 1
    assert spent(spend, a_call(), result(3)) == 3
    assert spent(spend, a_call(), result(1, UnusableResult("paid"), ChargeUnknown("perhaps"), NotSent("free"))) == 3
    assert spent(spend, a_call(posts=0), result()) == 0, "an answer without a paid request, as of a cache"


def test_earlier_attempts_that_may_have_been_charged_count() -> None:
    twice = Retry(on_ambiguous=True, max_charges=3)
    assert spent(Spend(), a_call(twice, posts=2), result()) == 2
    assert spent(Spend(), a_call(twice, posts=3), ChargeUnknown("x")) == 3
    assert spent(Spend(), a_call(twice, posts=3), asyncio.CancelledError()) == 3


def test_a_call_that_ends_early_counts_by_its_evidence() -> None:
    assert spent(Spend(), a_call(), asyncio.CancelledError()) == 1
    assert spent(Spend(), a_call(posts=0), asyncio.CancelledError()) == 0
    assert spent(Spend(), a_call(), NotSent("proved")) == 0
    assert spent(Spend(), a_call(posts=0), ChargeUnknown("its own word")) == 1
    job = a_call(posts=0)
    job.mark_job_accepted(Pending(id="a", poll=WireRequest(target="/", method="GET")))
    assert spent(Spend(), job, asyncio.CancelledError()) == 1


@pytest.mark.parametrize(
    ("billed", "images"), [(("yes", "no"), 1), (("yes", "unknown"), 2), (("unknown", "no", "no"), 1), (("yes",) * 3, 3)]
)
def test_of_a_failed_call_each_image_counts_that_was_not_free(billed: tuple[str, ...], images: int) -> None:
    error = ChargeUnknown("no")
    error.billed_each = billed  # type: ignore[assignment]  # of "no", "yes" and "unknown"
    assert spent(Spend(), a_call(count=len(billed)), error) == images


def test_a_reservation_is_not_there_for_another_call_until_its_own_ends() -> None:
    spend = Spend()
    with spend.reserve(a_call(posts=0), 0.2) as settle, spend.reserve(a_call(), 0.2):
        with pytest.raises(SpendLimitExceeded, match=r"may cost 0.1 USD, only 0 of spend_limit_usd=0.2 is left"):
            spend.reserve(a_call(), 0.2).__enter__()
        settle(result().completed(DIME, a_call().request, is_free=True))
    assert (spend.reserved, spend.usd) == (0, 0)


def test_the_last_cent_of_the_limit_may_be_spent_though_sums_are_binary() -> None:
    spend = Spend()
    for _ in range(10):
        assert spent(spend, a_call(), result(), limit=1.0) == 1
    with pytest.raises(SpendLimitExceeded, match=r"only 0 of spend_limit_usd=1 is left"):
        spend.reserve(a_call(), 1.0).__enter__()


def test_as_many_charges_are_reserved_as_the_policy_allows() -> None:
    spend = Spend()
    for policy, reserved in (
        (Retry(on_ambiguous=True, max_charges=3), 0.3),
        (Retry(on_ambiguous=False, max_charges=3), 0.1),
    ):
        with spend.reserve(a_call(policy, posts=0), 1.0):
            assert spend.reserved == pytest.approx(reserved)


def test_a_limit_that_was_passed_says_that_nothing_is_left() -> None:
    """A call may be charged more than it reserved; what is left is never below nothing."""
    spend = Spend()
    assert spent(spend, a_call(), result(9), limit=0.5) == 9
    with pytest.raises(SpendLimitExceeded, match=r"a call may cost 0.1 USD, only 0 of spend_limit_usd=0.5 is left"):
        spend.reserve(a_call(), 0.5).__enter__()
    with pytest.raises(SpendLimitExceeded, match="its price is unknown"):
        spend.reserve(a_call(price=None), 99.0).__enter__()


def test_a_call_is_free_until_a_paid_request_is_begun_or_a_job_is_resumed() -> None:
    assert a_call(posts=0).is_proven_free
    assert not a_call(posts=1).is_proven_free
    resumed = a_call(posts=0)
    resumed.request = attrs.evolve(resumed.request, job="a" * 64)
    assert not resumed.is_proven_free
    assert [a_call(posts=posts).possible_charges for posts in (0, 1)] == [0, 1]
    thrice = a_call(Retry(on_ambiguous=True, max_charges=9), posts=3)
    assert (thrice.attempts_started, thrice.unknown_attempts, thrice.possible_charges) == (3, 2, 3)
