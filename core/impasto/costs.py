"""The cost of a call, and the tokens that its provider counted."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Cost:
    """The cost of a call. ``as_of``: the date (ISO) at which the price was known."""

    usd: float
    credits: float | None = None
    as_of: str

    def times(self, n: int) -> Cost:
        """Return the cost of n of them."""
        return attrs.evolve(self, usd=round(self.usd * n, 10), credits=self.credits and round(self.credits * n, 10))

    def __add__(self, other: Cost) -> Cost:
        credits = None if self.credits is None or other.credits is None else round(self.credits + other.credits, 10)
        return attrs.evolve(self, usd=round(self.usd + other.usd, 10), credits=credits)


@attrs.frozen(kw_only=True)
class Usage:
    """Tokens that a provider counted. Those by kind are None if it does not count them."""

    input_tokens: int
    output_tokens: int
    input_text_tokens: int | None = None
    input_image_tokens: int | None = None
    output_text_tokens: int | None = None
    output_image_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        """All tokens, in and out."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            input_text_tokens=_sum(self.input_text_tokens, other.input_text_tokens),
            input_image_tokens=_sum(self.input_image_tokens, other.input_image_tokens),
            output_text_tokens=_sum(self.output_text_tokens, other.output_text_tokens),
            output_image_tokens=_sum(self.output_image_tokens, other.output_image_tokens),
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


_MOST_USD = 1e6
"""USD or credits of the largest cost of one call that is believed: NaN or 1e300 would break every sum it enters."""

_MOST_TOKENS = 10**12


def is_valid_cost(cost: object) -> bool:
    """Return True for a cost that budgets and ledgers can count. A paid image is not lost with an invalid one."""
    if not isinstance(cost, Cost) or not isinstance(cost.as_of, str):
        return False
    usd, credits = cost.usd, cost.credits  # compared one by one, as each call does it: benchmark `dispatch`
    if type(usd) not in _NUMBERS or not 0 <= usd <= _MOST_USD:
        return False
    return credits is None or (type(credits) in _NUMBERS and 0 <= credits <= _MOST_USD)


_NUMBERS = (int, float)  # no bool


def is_valid_usage(usage: object) -> bool:
    """Return True for a count of tokens that sums can take."""
    if not isinstance(usage, Usage):
        return False
    counts = (usage.input_tokens, usage.output_tokens)
    details = (usage.input_text_tokens, usage.input_image_tokens, usage.output_text_tokens, usage.output_image_tokens)
    return all(_is_count(each) for each in counts) and all(each is None or _is_count(each) for each in details)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST_TOKENS
