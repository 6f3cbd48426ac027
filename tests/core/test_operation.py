"""What follows from an operation's fields, the size of a whole request, and prices."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from impasto import BrokenPlugin, Cost, File, FlatPrice, InvalidRequest, Registry, Result, Usage
from impasto.dialects import TokenPrice
from impasto.fields import choice, file, text

ERASE = Registry().operation("stability/erase")
DIME = Cost(usd=0.1, credits=10, as_of="2026-01-01")


def any_file(file: File) -> list[str]:
    return []


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(required=True, role="prompt", alias="text")
    first: File | None = file(any_file, role="image")
    second: File | None = file(any_file, role="image")
    other: File | None = file(any_file, role=None)
    mode: str | None = choice("a", "b")


MADE = attrs.evolve(ERASE, params=Params, rules=(), max_bytes=10)


def test_roles_and_other_names_follow_from_the_fields() -> None:
    assert MADE.roles == {"prompt": ("prompt",), "image": ("first", "second")}
    assert MADE.aliases == {"text": "prompt"}
    assert MADE.file_fields == ("first", "second", "other")
    own = {name: MADE.fields[name] for name in ("first", "second", "other")}
    assert MADE.file_arguments == {"image": None, "mask": None, **own}


def test_a_request_of_the_most_bytes_is_taken_and_of_one_more_refused_by_its_largest_file() -> None:
    MADE.request("m", {"prompt": "x", "first": b"12345", "second": b"12345"})
    with pytest.raises(InvalidRequest) as caught:
        MADE.request("m", {"prompt": "x", "first": b"12345", "second": b"123456"})
    (problem,) = caught.value.problems
    assert problem == ("second", "the whole request may have at most 10 bytes, not 11 bytes of files")
    assert caught.value.operation == "m"


def test_a_price_in_words() -> None:
    assert str(FlatPrice(cost=DIME)) == "10 credits, 0.1 USD a call, as of 2026-01-01"
    bare = Cost(usd=0.0375, as_of="2026-01-01")
    assert str(FlatPrice(cost=bare, note="up to 1 MP")) == "0.0375 USD a call, as of 2026-01-01 (up to 1 MP)"


def test_tokens_are_priced_if_the_plugin_gives_no_cost() -> None:
    price: TokenPrice[object] = TokenPrice(text_input=5, image_input=5, output=40, as_of="2026-01-01")
    operation = attrs.evolve(ERASE, price=price)
    counted = Result(artifacts=(), usage=Usage(input_tokens=100, output_tokens=1000))
    assert operation.cost_of_tokens(counted.usage) == Cost(usd=0.0405, as_of="2026-01-01")
    assert operation.priced_by_usage(counted).cost == Cost(usd=0.0405, as_of="2026-01-01")
    odd = attrs.evolve(counted, usage=Usage(input_tokens=-1, output_tokens=1000))
    for result in (odd, attrs.evolve(counted, usage=None)):
        assert operation.priced_by_usage(result) is result
    assert ERASE.priced_by_usage(counted) is counted


def test_a_job_that_is_resumed_costs_nothing_and_a_price_of_another_type_is_named() -> None:
    request = ERASE.request("m", {"image": _png()})
    assert ERASE.cost(request) is not None
    assert ERASE.cost(attrs.evolve(request, job="a" * 64)) is None
    assert attrs.evolve(ERASE, price=None).cost(request) is None

    class Odd:
        cost = None

        def quote(self, params: object) -> float:
            return 0.1

    with pytest.raises(BrokenPlugin, match="m: its price returned float, not a Cost; nothing was sent"):
        attrs.evolve(ERASE, price=Odd()).cost(request)  # type: ignore[arg-type]  # what the test is about


def _png() -> bytes:
    from tests.images import png

    return png(64, 64)


@pytest.mark.parametrize("usd", [float("nan"), float("inf"), -0.1, 1e300, None, True])
def test_a_price_that_would_break_a_budget_is_refused_before_anything_is_sent(usd: Any) -> None:
    class Price:
        cost = None

        def quote(self, params: object) -> Cost:
            return Cost(usd=usd, as_of="2026-01-01")

    operation = attrs.evolve(ERASE, price=Price())
    with pytest.raises(BrokenPlugin, match="its price returned Cost.*not an amount from 0 USD; nothing was sent"):
        operation.cost(operation.request("m", {"image": _png()}))
