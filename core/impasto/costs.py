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
