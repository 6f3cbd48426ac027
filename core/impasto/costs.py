"""The cost of a call, the tokens that its provider counted, and their price."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

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


Params = TypeVar("Params")


@attrs.frozen(kw_only=True)
class TokenPrice(Generic[Params]):
    """A price in USD for a million tokens of text, of images and of output, known on the day ``as_of``.

    ``text_output`` is the price of text in the output, if it is another than that of images, ``output``. ``estimate``
    returns the USD of one image before the call, or None if it is not known.
    """

    text_input: float
    image_input: float
    output: float
    as_of: str
    text_output: float | None = None
    estimate: Callable[[Params], float | None] = lambda _: None

    def quote(self, params: Params) -> Cost | None:
        """Return the estimate of one image."""
        usd = self.estimate(params)
        return None if usd is None else Cost(usd=usd, as_of=self.as_of)

    def of(self, usage: Usage | None) -> Cost | None:
        """Return the cost of the tokens of an answer, None if it does not count those that have their own prices."""
        if usage is None:
            return None
        text_output = self.output if self.text_output is None else self.text_output
        text, images = usage.input_text_tokens, usage.input_image_tokens
        usd_in = _usd(usage.input_tokens, (text, self.text_input), (images, self.image_input))
        text, images = usage.output_text_tokens, usage.output_image_tokens
        usd_out = _usd(usage.output_tokens, (text, text_output), (images, self.output))
        if usd_in is None or usd_out is None:
            return None
        return Cost(usd=round((usd_in + usd_out) / 1e6, 10), as_of=self.as_of)

    def __str__(self) -> str:
        text = "" if self.text_output is None else f" and {self.text_output:g} for text in it"
        prices = f"{self.text_input:g} USD for text, {self.image_input:g} for images, {self.output:g} for output{text}"
        return f"{prices}, for a million tokens each, as of {self.as_of}"


def _usd(tokens: int, *kinds: tuple[int | None, float]) -> float | None:
    """Return the price of tokens of several kinds, each with its count and price; None if a count is needed."""
    if len({price for _, price in kinds}) == 1:
        return tokens * kinds[0][1]
    usd = 0.0
    for count, price in kinds:
        if count is None:
            return None
        usd += count * price
    return usd
