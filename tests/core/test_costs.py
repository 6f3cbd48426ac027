"""The cost of a call, and the most that it may have cost: by the price, by the provider's word, of several calls."""

from __future__ import annotations

import pytest

from impasto import Artifact, ChargeUnknown, ContentFiltered, Cost, FailedArtifact, ImpastoError, Request, Result
from impasto.errors import Billed
from impasto.ext import combine_results

DIME = Cost(usd=0.1, credits=10, as_of="2026-01-01")
OWN = Cost(usd=0.07, as_of="2026-02-02")
IMAGE = Artifact(data=b"x", media_type="image/png")


def request(count: int) -> Request:
    return Request(operation="p/m", params=DIME, target="/", count=count)


def filtered(billed: Billed) -> ContentFiltered:
    return ContentFiltered("filtered", status=200, billed=billed)


def answer(images: int, *billed: Billed, cost: Cost | None = None) -> Result:
    errors = tuple(FailedArtifact(index=images + i, error=filtered(each)) for i, each in enumerate(billed))
    return Result(artifacts=(IMAGE,) * images, errors=errors, cost=cost)


def usd(result: Result) -> tuple[float | None, float | None]:
    return tuple(None if each is None else each.usd for each in (result.cost, result.possible_cost))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (answer(3), (0.3, 0.3)),
        (answer(2, "yes"), (0.3, 0.3)),
        (answer(2, "unknown"), (0.2, 0.3)),
        (answer(2, "no"), (0.2, 0.2)),
        (answer(2), (0.2, 0.3)),  # the third is missing without a word
        (answer(1, "yes", "unknown"), (0.2, 0.3)),
        (answer(2, "yes", cost=OWN), (0.07, 0.07)),
        (answer(2, "unknown", cost=OWN), (0.07, 0.07)),
    ],
)
def test_one_request_for_three_images(result: Result, expected: tuple[float, float]) -> None:
    completed = result.completed(DIME, request(3))
    assert usd(completed) == expected
    if result.cost is None:
        assert completed.cost is not None
        assert completed.cost.credits == pytest.approx(expected[0] * 100)
    assert usd(result.completed(None, request(3))) == ((0.07, 0.07) if result.cost is not None else (None, None))


@pytest.mark.parametrize("cost", [None, OWN])
def test_a_failure_that_is_proved_free_costs_nothing_whatever_its_answer_cost_once(cost: Cost | None) -> None:
    assert usd(answer(1, "yes", cost=cost).completed(DIME, request(2), is_free=True)) == (0, 0)


def test_earlier_attempts_that_may_have_been_charged_are_possible() -> None:
    assert usd(answer(2).completed(DIME, request(2), earlier_attempts=2)) == (0.2, 0.6)
    assert usd(answer(2, cost=OWN).completed(DIME, request(2), earlier_attempts=1)) == (0.07, 0.27)
    assert usd(answer(2, cost=OWN).completed(None, request(2), earlier_attempts=1)) == (0.07, None)


def test_a_price_that_replaces_every_other() -> None:
    assert usd(answer(1, "yes", "unknown", cost=OWN).priced(DIME)) == (0.2, 0.3)


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (filtered("yes"), (0.47, 0.47)),
        (filtered("unknown"), (0.27, 0.47)),
        (filtered("no"), (0.27, 0.27)),
        (ChargeUnknown("broken"), (0.27, 0.47)),
    ],
)
def test_several_requests_of_which_one_for_two_images_failed(
    failed: ImpastoError, expected: tuple[float, float]
) -> None:
    first = answer(1, cost=OWN).completed(DIME, request(1))
    second = answer(1, "yes").completed(DIME, request(2))
    parts: list[tuple[Result | ImpastoError, int]] = [(first, 1), (second, 2), (failed, 2)]
    assert usd(combine_results(parts, price=lambda: DIME)) == expected
    unpriced = tuple(each if each == 0.27 else None for each in expected)
    assert usd(combine_results(parts)) == unpriced, "a part whose price is unknown is not nothing"


def test_images_of_a_failed_request_with_bills_of_their_own() -> None:
    failed = filtered("yes")
    failed.billed_each = ("yes", "no", "unknown")
    one = answer(1).completed(DIME, request(1))
    assert usd(combine_results([(one, 1), (failed, 3)], price=lambda: DIME)) == (0.2, 0.3)
